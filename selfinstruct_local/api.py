"""The Python API, for notebooks: one function per stage to read, filter and generate tasks, train and report.

The functions run the same stages as the commands, with the same settings under the same names. They are available from
`import selfinstruct_local`, which imports their dependencies on first use. Progress is printed on stderr.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import TOKENIZERS, Language
from selfinstruct_local.offline import go_offline
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.task import Task, Verdict

if TYPE_CHECKING:
    from selfinstruct_local.models import ModelFolder
    from selfinstruct_local.report.review.make import Review
    from selfinstruct_local.report.review.sample import Per
    from selfinstruct_local.report.review.scores import Scores
    from selfinstruct_local.report.statistics import SourceStatistics
    from selfinstruct_local.train.result import TrainingResult

PathLike = str | Path


class Filtered(NamedTuple):
    """The result of `filter_tasks`.

    Attributes:
        kept: kept tasks, in order.
        rejected: rejected tasks with their verdicts: the rule, its detail, and for near copies the ROUGE-L F with the
            nearest instruction.
    """

    kept: list[Task]
    rejected: list[tuple[Task, Verdict]]


class Generated(NamedTuple):
    """The result of `generate_tasks`.

    Attributes:
        tasks: all accepted tasks of the run, those of earlier sessions included.
        rejected: number of rejected candidates by rule, most frequent first.
        reason: why the session ended: `done`, `stalled`, `interrupted`, or the budget that is spent.
    """

    tasks: list[Task]
    rejected: dict[str, int]
    reason: str


def load_tasks(source: PathLike) -> list[Task]:
    """Return the tasks of a file, or the accepted tasks of a run.

    Args:
        source: JSONL, a JSON array or Parquet, with the fields of Alpaca or of the seeds; or a run folder.

    Raises:
        UsageError: the file or run does not exist, or a record is invalid; the message names it.
    """
    path = Path(source)
    if not (path / DATABASE).is_file():
        return read_tasks(path)
    with RunStore(path, read_only=True) as store:
        return list(store.accepted())


def filter_tasks(
    tasks: Sequence[Task],
    *,
    against: Sequence[Task] = (),
    threshold: float = 0.7,
    rules: str = "alpaca",
    lang: Language = "en",
) -> Filtered:
    """Return which tasks pass the rules and are no near copy of a kept task before them, exactly and in order.

    A task with the instruction of a kept task and another input or output is kept as a further instance of it.

    Args:
        tasks: tasks to filter.
        against: tasks that kept tasks must also differ from, such as the seeds.
        threshold: maximum ROUGE-L F of two kept instructions, in (0, 1].
        rules: one of `filters.rulesets.RULE_SETS`; `none` for novelty only.
        lang: language of the rules, `en` or `zh`; it also selects the tokenizer of ROUGE-L.

    Raises:
        ValueError: there is no such rule set for the language, or the threshold is out of range.
    """
    from selfinstruct_local.filters.decide import Decider
    from selfinstruct_local.filters.instances import Instances
    from selfinstruct_local.filters.rulesets import rule_set
    from selfinstruct_local.kernels import NoveltyIndex

    decider = Decider(rule_set(rules, lang), NoveltyIndex(threshold=threshold, tokenizer=TOKENIZERS[lang]))
    decider.index.add([each.instruction for each in against])
    decided = list(zip(tasks, Instances().settle(tasks, decider.decide(tasks)), strict=True))
    kept = [task for task, verdict in decided if verdict.keep]
    return Filtered(kept, [(task, verdict) for task, verdict in decided if not verdict.keep])


def generate_tasks(
    run: PathLike, *, model: PathLike | None = None, seeds: Sequence[PathLike] = (), **settings: Any
) -> Generated:
    """Generate tasks into a run until `num` are accepted, and return its tasks; the same call resumes the run.

    Args:
        run: folder of the run, created if missing.
        model: local model folder or name of a prepared model; None selects the embedded small model. With `endpoint`,
            the folder or name of the model that the servers serve; None if they serve only one.
        seeds: files of seeds that replace the built-in seeds.
        settings: settings of `GenerateSettings` and its `EngineSettings` by name: `num`, `profile`, `lang`,
            `in_flight`, ...; `prompts` is a folder of templates that replace the built-in ones of the same names.

    Raises:
        TypeError: there is no setting with a given name.
        UsageError: a value is invalid, or the run was created with other deciding settings.
        RunError: the engine could not start, or died and could not be restarted; or no server is reachable.
    """
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.generate.create import open_run
    from selfinstruct_local.generate.display import RunDisplay
    from selfinstruct_local.generate.launch import choose_model, fit_to_model, launch
    from selfinstruct_local.generate.profiles.registry import make_profile
    from selfinstruct_local.generate.run import run as generate
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.io.interrupt import interruptible
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.seeds import seed_file

    go_offline()
    _check_names(GenerateSettings, settings)
    given = load_settings(GenerateSettings, None, settings)
    chosen = choose_model(None if model is None else str(model), given, _find_model)
    fitted = fit_to_model(given, chosen, None, settings, own_seeds=bool(seeds))
    with RunStore(Path(run)) as store:
        files = [Path(each) for each in seeds] or [seed_file(fitted.lang)]
        seed_tasks = open_run(store, fitted, chosen.facts(), files)
        profile = make_profile(fitted)
        if note := fitted.prompts.note_unused(profile.prompts, f"profile '{profile.name}' under these settings"):
            stderr_console().print(note)
        log = store.folder / "engine.log"
        with interruptible() as interrupt, RunDisplay(stderr_console(), store.totals(), fitted.num) as display:
            outcome = generate(
                store, fitted, seed_tasks, lambda: launch(chosen, fitted, log, store), display, interrupt
            )
        return Generated(list(store.accepted()), dict(store.totals().rejected), outcome.reason)


def train_model(
    data: Sequence[PathLike],
    out: PathLike,
    *,
    model: PathLike | None = None,
    preset: str | None = None,
    **settings: Any,
) -> "TrainingResult":
    """Fine-tune a model on files and runs after an audit, and return the result; the same call resumes the training.

    Args:
        data: files, run folders, or `PATH:WEIGHT` as for the command.
        out: folder for the model or the adapter, created if missing.
        model: base model: a local folder or name of a prepared model; None selects the embedded small model.
        preset: `alpaca-7b`, `lora-7b`, `qlora-7b` or `demo-cpu`.
        settings: settings of `TrainSettings` by name; they override the preset.

    Raises:
        TypeError: there is no setting with a given name.
        UsageError: a value is invalid, the data fails the audit, or `out` has another training.
        OutOfMemoryError: the model or a training step needs more memory than there is.
    """
    from selfinstruct_local.io.files import check_writable_folder
    from selfinstruct_local.io.interrupt import interruptible
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.train.audit import examine
    from selfinstruct_local.train.display import TrainingDisplay
    from selfinstruct_local.train.folder import open_folder
    from selfinstruct_local.train.processes import echo_seconds
    from selfinstruct_local.train.settings import TrainSettings, load_train_settings
    from selfinstruct_local.train.sources import DataSource, read_sources
    from selfinstruct_local.train.trainer import train

    go_offline()
    _check_names(TrainSettings, settings)
    chosen = load_train_settings(preset, None, settings)
    samples = read_sources([DataSource.parse(str(each)) for each in data], chosen.seed)
    base = _find_model(model)
    check_writable_folder(Path(out), "out")
    examples, audit = examine(samples, base, chosen)
    audit.check(chosen)
    folder = open_folder(Path(out), examples, base, chosen)
    if folder.is_done:
        message = f"{out}: its training is already done; name another folder to train again"
        raise UsageError(message)
    display = TrainingDisplay(stderr_console())
    with interruptible(echo_seconds()) as interrupt:
        return train(examples, base, folder, chosen, interrupt=interrupt, callbacks=[display], tell=display.tell)


def make_report(
    sources: Sequence[PathLike], out: PathLike, *, seeds: PathLike | None = None
) -> "list[SourceStatistics]":
    """Write an HTML page about runs and files of tasks, and return the statistics of each.

    The processes that parse instructions import the calling script, so put the call under
    `if __name__ == "__main__":`. A notebook does not need it.

    Args:
        sources: run folders and files of tasks.
        out: HTML file to write.
        seeds: file of seeds to compare with; None selects those of the run, or the built-in ones.

    Raises:
        UsageError: a source cannot be read, `out` cannot be written, or the extra `report` is missing.
    """
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report import make

    chosen = Path(seeds) if seeds else None
    return make.make_report([Path(each) for each in sources], Path(out), chosen, stderr_console())


def make_review(
    sources: Sequence[PathLike],
    out: PathLike,
    *,
    sample: int = 50,
    per: "Per" = "sample",
    seed: int = 0,
    accepted: bool | None = None,
    rejected: bool | None = None,
) -> "Review":
    """Write a stratified sample to an HTML page for blind reading, and its key next to it.

    Args:
        sources: run folders and files of tasks or rejects.
        out: HTML file to write; the key has the same name with the suffix `.key.json`.
        sample: number of tasks to sample.
        per: unit of `sample`: tasks per `sample`, per `source` or per `rule`.
        seed: random seed.
        accepted: whether to sample accepted tasks; None for yes, unless `rejected` is true.
        rejected: whether to sample rejected tasks; None for no in runs and yes in files.

    Raises:
        UsageError: a source cannot be read or has no task to sample, `out` cannot be written, or the key of another
            sample exists.
    """
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report.review import make

    paths = [Path(each) for each in sources]
    return make.make_review(
        paths, Path(out), sample, seed, stderr_console(), per=per, accepted=accepted, rejected=rejected
    )


def score_review(labels: Sequence[PathLike], *, key: PathLike | None = None, run: PathLike | None = None) -> "Scores":
    """Return the scores of review labels: shares of yes with intervals, and the agreement of the readers.

    Args:
        labels: label files that the page saved, one per reader.
        key: key of the page; without it there are only scores over all tasks.
        run: run that stores the scores of its accepted tasks, for its card and report; needs the key.

    Raises:
        UsageError: a file is not a label file or is of another sample, or the run is not in the sample.
    """
    from selfinstruct_local.report.review import score

    paths = [Path(each) for each in labels]
    return score.score_review(paths, Path(key) if key else None, Path(run) if run else None)


def _find_model(name: PathLike | None) -> "ModelFolder":
    from selfinstruct_local.models import find_model, prepare_embedded

    return prepare_embedded() if name is None else find_model(str(name))


def _check_names(settings: type[BaseModel], given: Mapping[str, Any]) -> None:
    known: set[str] = set()
    for name, field in settings.model_fields.items():
        group = field.annotation
        known |= set(group.model_fields) if isinstance(group, type) and issubclass(group, BaseModel) else {name}
    if unknown := sorted(set(given) - known):
        message = f"no such setting: {', '.join(unknown)}; see {settings.__name__}"
        raise TypeError(message)
