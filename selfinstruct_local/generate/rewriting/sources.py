"""Open the target run of `translate` and `polish`: select the tasks to rewrite, and fix the deciding settings.

A translation run inherits all tasks of its source run, so that it contains both languages. A `polish` run inherits the
tasks that are not selected. Each selected task joins in its rewritten form, or as the original if that is rejected.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.rulesets import PUBLISHED
from selfinstruct_local.filters.thresholds import Thresholds
from selfinstruct_local.generate.create import PLACES, differing_facts
from selfinstruct_local.generate.decision import JobDecider
from selfinstruct_local.generate.job import stream_seed
from selfinstruct_local.generate.profiles.registry import prompt_facts
from selfinstruct_local.generate.rewriting.integrity import language_of
from selfinstruct_local.generate.rewriting.profile import Command, RewriteProfile, needs_translation
from selfinstruct_local.generate.run import Work
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.store import InheritedTask, RunStore, StoredPool
from selfinstruct_local.runs.store.records import inherited_id, task_to_json
from selfinstruct_local.task import Task

# Settings that affect the rewritten tasks. The window does not, because no prompt shows the pool.
DECIDING = ("lang", "rules", "threshold", "prompt_format", "max_model_len", "seed", "quantization", *Thresholds._fields)
# Facts of the source for the dataset card, which are not compared; the fingerprint of its tasks is.
SOURCE_NOTES = PLACES | {"source_run", "source_makers"}


class Rewriting(NamedTuple):
    """The jobs and settings of a rewriting run.

    Attributes:
        work: jobs for the loop.
        settings: settings, with unset ones taken from the source run.
    """

    work: Work
    settings: GenerateSettings


def open_rewriting(
    store: RunStore,
    source: RunStore,
    command: Command,
    settings: GenerateSettings,
    model: Mapping[str, Any],
    *,
    to: Language | None = None,
    fraction: float = 1.0,
) -> Rewriting:
    """Fix the deciding settings of a new rewriting run, or check those of an existing one; return its jobs.

    Args:
        store: target run.
        source: run whose accepted tasks are rewritten; it is only read. On resume, tasks added since are ignored.
        command: rewriting command.
        settings: settings of this start; unset rules, threshold and language are the source's.
        model: facts of the model, see `ChosenModel.facts`.
        to: language to translate to.
        fraction: fraction of the tasks to select, in (0, 1].

    Raises:
        UsageError: the source has no tasks to rewrite, or the target run has another source or other settings; the
            message says which.
    """
    if not 0 < fraction <= 1:
        message = f"--fraction {fraction}: must be above 0 and at most 1"
        raise UsageError(message)
    known = store.facts()
    tasks = list(islice(source.accepted(), known.get("source_tasks")))
    fitted = _fit(settings, source.facts(), command, to)
    chosen = choose(tasks, command, to, fraction, settings.seed)
    if not chosen:
        what = f"tasks to translate to {to}" if command == "translate" else "tasks with an output"
        message = f"--run {source.folder}: has no {what} among its {len(tasks)} accepted tasks"
        raise UsageError(message)
    profile = RewriteProfile(command, fitted, _named(tasks, chosen, command))
    facts: dict[str, Any] = {
        **{name: value for name, value in fitted.deciding().items() if name in DECIDING},
        **model,
        "profile": command,
        "fraction": fraction,
        **prompt_facts(profile, fitted.prompts),
        "source_run": str(source.folder.resolve()),
        "source_makers": _makers(source.facts()),
        "source_tasks": len(tasks),
        "source_fingerprint": _fingerprint(tasks),
    }
    if known:
        _check_same(store, known, facts)
    else:
        kept = range(len(tasks)) if command == "translate" else sorted(set(range(len(tasks))) - set(chosen))
        origin = {"run": facts["source_run"]}
        _inherit(store, [InheritedTask(tasks[place], {**origin, "id": tasks[place].id}) for place in kept])
        store.create(facts, [])
    wanted = store.totals().inherited + profile.jobs
    work = Work(profile, profile.jobs, partial(_make_acceptance, store, fitted, to))
    return Rewriting(work, fitted.model_copy(update={"num": wanted}))


def choose(tasks: Sequence[Task], command: Command, to: Language | None, fraction: float, seed: int) -> list[int]:
    """Return the positions of the tasks to rewrite, in order; a larger fraction includes those of a smaller one.

    Tasks without an output are never selected, nor, for a translation, tasks already in the target language.
    """
    able = [
        place
        for place, task in enumerate(tasks)
        if task.instances
        and all(each.output.strip() for each in task.instances)
        and (to is None or needs_translation(task.instruction, to))
    ]
    count = max(1, int(fraction * len(able) + 0.5))
    Random(stream_seed(seed, -1, f"choice to {command}", 0)).shuffle(able)  # noqa: S311
    return sorted(able[:count])


def _fit(
    settings: GenerateSettings, facts: Mapping[str, Any], command: Command, to: Language | None
) -> GenerateSettings:
    left_open = {"rules", "threshold"} - settings.model_fields_set
    if facts.get("profile") == "polish":  # its threshold has no effect
        left_open -= {"threshold"}
    update = {name: facts[name] for name in left_open if name in facts}
    # The published rule sets support only English and accept empty outputs.
    rules = update.get("rules", settings.rules)
    update |= {"rules": PUBLISHED.get(rules, rules), "lang": to or facts.get("lang", settings.lang)}
    if command == "polish":
        # Unchanged instructions need no novelty check: no ROUGE-L F is above 1.
        update["threshold"] = 1.0
    return settings.model_copy(update=update)


def _makers(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the models and languages of the source's tasks, oldest first, for the dataset card.

    If the source is itself a rewriting run, the list includes the models of its own source. Models are identified by
    name, because local paths do not belong in a published card.
    """
    earlier = list(facts.get("source_makers", []))
    if "model_path" not in facts:  # the model of imported tasks is unknown
        return earlier
    model = {name: facts.get(name) for name in ("model_fingerprint", "adapter_fingerprint", "lang")}
    own = [name for name, each in facts.get("prompt_texts", {}).items() if each["own"]]
    return [*earlier, {"model": Path(facts["model_path"]).name, **model, "own_prompts": own}]


def _named(tasks: Sequence[Task], chosen: Sequence[int], command: Command) -> list[Task]:
    """Return the selected tasks with the IDs for the lineage in the new run.

    The original of a translation is inherited and has an ID there; the original of a rewritten task exists only in the
    source run.
    """
    if command == "translate":
        return [tasks[place]._replace(id=inherited_id(place)) for place in chosen]
    return [tasks[place]._replace(id=f"source:{tasks[place].id}") for place in chosen]


def _inherit(store: RunStore, tasks: Sequence[InheritedTask]) -> None:
    """Add the tasks to the pool, unless an earlier, killed start already did."""
    if [each.origin for each in store.inherited()] == [each.origin for each in tasks] and not store.facts():
        return
    store.check_unused("--into")
    store.inherit(tasks)


def _check_same(store: RunStore, known: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if "source_fingerprint" not in known:
        message = f"--into {store.folder}: contains a run of 'selfinstruct generate'; name a new folder"
        raise UsageError(message)
    if differences := list(differing_facts(known, facts, SOURCE_NOTES)):
        message = (
            f"--into {store.folder}: was created from other tasks or with other settings ({'; '.join(differences)}); "
            "use the same, or name a new folder"
        )
        raise UsageError(message)


def _fingerprint(tasks: Sequence[Task]) -> str:
    """Return the SHA-256 of the tasks with their IDs."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(f"{task_to_json(task)}\n".encode())
    return digest.hexdigest()


def _make_acceptance(store: RunStore, settings: GenerateSettings, to: Language | None, pool: StoredPool) -> JobDecider:
    """Return a decider that checks only novelty, because the profile applies the rules in each task's language.

    A translation is compared only with tasks in its language, because it shares code and names with its original. Other
    tasks are indexed as empty texts, which are similar to nothing.
    """
    instructions = store.pool_instructions()
    inherited = (
        text if to is None or language_of(text) == to else "" for text in islice(instructions, store.totals().inherited)
    )
    return JobDecider((), settings.threshold, "unicode", (), pool, chain(inherited, instructions))
