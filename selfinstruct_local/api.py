"""What a notebook needs, a function a stage: read tasks, filter them, generate more, tune a model, look at it all.

The same stages that the commands call, with the same settings by the same names; `import selfinstruct_local` gives
these names, and loads what they lean on when they are first used. Progress is shown on stderr.
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
    from selfinstruct_local.report.statistics import Figures
    from selfinstruct_local.train.result import TrainingResult

PathLike = str | Path


class Filtered(NamedTuple):
    """What `filter_tasks` decided.

    Attributes:
        kept: in their order.
        rejected: each with its verdict: the rule, what it saw, and of near copies the ROUGE-L F of the nearest.
    """

    kept: list[Task]
    rejected: list[tuple[Task, Verdict]]


class Generated(NamedTuple):
    """What a run holds.

    Attributes:
        tasks: all that it accepted so far, with those of earlier starts.
        rejected: number of candidates by rule, most first.
        reason: why it ended: `done`, `stalled`, `interrupted`, or the budget that is spent.
    """

    tasks: list[Task]
    rejected: dict[str, int]
    reason: str


def load_tasks(source: PathLike) -> list[Task]:
    """The tasks of a file (JSONL, a JSON array, Parquet; Alpaca's fields or the seeds'), or those a run accepted.

    Raises:
        UsageError: there is no such file or run, or a record of it is broken; the message names it.
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
    """Keeps what the rules pass and no kept task before it is like, exactly and in order.

    A task with the instruction of a kept one and another input or output is kept as its instance.

    Args:
        tasks: to decide.
        against: tasks that they must differ from too, such as the seeds.
        threshold: largest ROUGE-L F, in [0, 1], that two kept instructions may have.
        rules: one of `filter.rulesets.RULE_SETS`; `none` for novelty alone.
        lang: `en` or `zh`: of the rules, and of the tokens that ROUGE-L compares.

    Raises:
        ValueError: no rules of that name for that language, or a threshold out of bounds.
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
    """Writes new tasks into a run until it has as many as wanted; the same call goes on with what is there.

    Args:
        run: folder of the run, which is made.
        model: a local folder, or the name of a prepared model; None is the embedded small one. With `endpoint`, the
            folder or the name of what the servers serve; None for the only one they do.
        seeds: files of seeds in place of those of the package.
        settings: of `GenerateSettings` and its `EngineSettings`, by name: `num`, `profile`, `lang`, `in_flight`, ...;
            `prompts` is a folder of templates that replace the built-in ones of the same names.

    Raises:
        TypeError: there is no setting of such a name.
        UsageError: a value will not do, or the run was made under other deciding settings.
        RunError: the engine could not start, or died and did not come back; or no server answers.
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
    fitted = fit_to_model(given, chosen, None, settings)
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
    """Tunes a model on files and runs, audited first; the same call goes on with what was broken off.

    Args:
        data: files, run folders, or `PATH:WEIGHT` as for the command.
        out: folder for the model or the adapter, which is made.
        model: the base: a local folder, or the name of a prepared model; None is the embedded small one.
        preset: `alpaca-7b`, `lora-7b`, `qlora-7b` or `demo-cpu`.
        settings: of `TrainSettings`, by name, over those of the preset.

    Raises:
        TypeError: there is no setting of such a name.
        UsageError: a value will not do, the audit has something against the data, or `out` holds another training.
        OutOfMemoryError: the memory does not hold the model or a step.
    """
    from selfinstruct_local.io.files import check_writable_folder
    from selfinstruct_local.io.interrupt import interruptible
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.train.audit import examine
    from selfinstruct_local.train.display import TrainingDisplay
    from selfinstruct_local.train.folder import open_folder
    from selfinstruct_local.train.processes import echo_seconds
    from selfinstruct_local.train.settings import TrainSettings, load_train_settings
    from selfinstruct_local.train.sources import Source, read_sources
    from selfinstruct_local.train.trainer import train

    go_offline()
    _check_names(TrainSettings, settings)
    chosen = load_train_settings(preset, None, settings)
    samples = read_sources([Source.parse(str(each)) for each in data], chosen.seed)
    base = _find_model(model)
    check_writable_folder(Path(out), "out")
    examples, audit = examine(samples, base, chosen)
    audit.check(chosen)
    folder = open_folder(Path(out), examples, base, chosen)
    if folder.is_done:
        message = f"{out}: its training is done already; name another folder to train anew"
        raise UsageError(message)
    display = TrainingDisplay(stderr_console())
    with interruptible(echo_seconds()) as interrupt:
        return train(examples, base, folder, chosen, interrupt=interrupt, callbacks=[display], tell=display.tell)


def make_report(sources: Sequence[PathLike], out: PathLike, *, seeds: PathLike | None = None) -> "list[Figures]":
    """Writes one HTML page about runs and files of tasks, and gives what it counts of each.

    Processes that parse instructions import the script that calls this, so the call stands under
    `if __name__ == "__main__":`. A notebook needs no such line.

    Args:
        sources: run folders and files of tasks.
        out: the page.
        seeds: a file of seeds to compare with, in place of those of the run or the package.

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
    """Draws a stratified sample into an HTML page for blind reading, and writes its key next to it.

    Args:
        sources: run folders and files of tasks or rejects.
        out: the page; the key takes its name with `.key.json` for its ending.
        sample: tasks to draw.
        per: what `sample` counts: tasks of the whole `sample`, of each `source` or of each `rule`.
        seed: of the random choices.
        accepted: whether to draw accepted tasks; None for yes, unless `rejected` is true.
        rejected: whether to draw rejected tasks; None for no in runs and yes in files.

    Raises:
        UsageError: a source cannot be read or has no task to draw, `out` cannot be written, or the key of another
            sample is in the way.
    """
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.report.review import make

    paths = [Path(each) for each in sources]
    return make.make_review(
        paths, Path(out), sample, seed, stderr_console(), per=per, accepted=accepted, rejected=rejected
    )


def score_review(labels: Sequence[PathLike], *, key: PathLike | None = None, run: PathLike | None = None) -> "Scores":
    """The scores of labels that the page of a review saved: shares of yes with intervals, and agreement of readers.

    Args:
        labels: files of labels, one per reader.
        key: the key of the page; None for scores of all tasks together only.
        run: a run to store the scores of its accepted tasks in, for its card and report; needs the key.

    Raises:
        UsageError: a file is something else or has the labels of another sample, or the run is none of the sample.
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
