"""Opens the run that `translate` and `polish` write into: which tasks of another run it rewrites, and what decides it.

A translating run inherits all tasks of its source, so that it holds both languages. A polishing run inherits those that
were not chosen; each chosen one joins as it was polished, or as it was where that was turned away.
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

# The settings that decide what becomes of a chosen task. The window does not: no prompt shows the pool.
DECIDING = ("lang", "rules", "threshold", "prompt_format", "max_model_len", "seed", "quantization", *Thresholds._fields)
# What is noted of the source for its card; the fingerprint of its tasks decides.
SOURCE_NOTES = PLACES | {"source_run", "source_makers"}


class Rewriting(NamedTuple):
    """What a run rewrites, and under which settings.

    Attributes:
        work: for the loop.
        settings: with what was left open taken from the source.
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
    """Fixes what decides a new run, or checks that an old one is decided by the same.

    Args:
        store: the run to write into.
        source: the run whose accepted tasks are rewritten; it is read only. What joined it since is left alone.
        command: what is done to them.
        settings: of this start; rules, threshold and language are those of the source where they are left open.
        model: see `ChosenModel.facts`.
        to: the language to translate to.
        fraction: the share of the tasks, in (0, 1], that is chosen.

    Raises:
        UsageError: the source has nothing to rewrite, or the run was made of something else; the message says how.
    """
    if not 0 < fraction <= 1:
        message = f"--fraction {fraction}: above 0 and at most 1"
        raise UsageError(message)
    known = store.facts()
    tasks = list(islice(source.accepted(), known.get("source_tasks")))
    fitted = _fit(settings, source.facts(), command, to)
    chosen = choose(tasks, command, to, fraction, settings.seed)
    if not chosen:
        what = f"tasks to translate to {to}" if command == "translate" else "tasks with an output"
        message = f"--run {source.folder}: has no {what} among its {len(tasks)} accepted ones"
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
    """The positions of the tasks to rewrite, in order: a larger fraction holds all of a smaller one.

    Tasks without an output, and in a translation those that are of its language already, are no choice.
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
    if facts.get("profile") == "polish":  # its threshold says nothing
        left_open -= {"threshold"}
    update = {name: facts[name] for name in left_open if name in facts}
    # The published sets know English alone, and take empty outputs.
    rules = update.get("rules", settings.rules)
    update |= {"rules": PUBLISHED.get(rules, rules), "lang": to or facts.get("lang", settings.lang)}
    if command == "polish":
        # An instruction that stays as it was is not compared with any: no ROUGE-L F is above 1.
        update["threshold"] = 1.0
    return settings.model_copy(update=update)


def _makers(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What wrote the tasks of a source, and in which language; before it, what wrote those that it rewrote itself.

    Models are told by their names: where they lie is no business of who reads a card.
    """
    earlier = list(facts.get("source_makers", []))
    if "model_path" not in facts:  # imported tasks tell nothing
        return earlier
    model = {name: facts.get(name) for name in ("model_fingerprint", "adapter_fingerprint", "lang")}
    own = [name for name, each in facts.get("prompt_texts", {}).items() if each["own"]]
    return [*earlier, {"model": Path(facts["model_path"]).name, **model, "own_prompts": own}]


def _named(tasks: Sequence[Task], chosen: Sequence[int], command: Command) -> list[Task]:
    """The chosen tasks with the ids by which the lineages of the new run know them.

    A translated one is inherited; what stands in the place of a polished one can only name it in its own run.
    """
    if command == "translate":
        return [tasks[place]._replace(id=inherited_id(place)) for place in chosen]
    return [tasks[place]._replace(id=f"source:{tasks[place].id}") for place in chosen]


def _inherit(store: RunStore, tasks: Sequence[InheritedTask]) -> None:
    """Takes the tasks into the pool, unless a start that was killed has done it."""
    if [each.origin for each in store.inherited()] == [each.origin for each in tasks] and not store.facts():
        return
    store.check_unused("--into")
    store.inherit(tasks)


def _check_same(store: RunStore, known: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if "source_fingerprint" not in known:
        message = f"--into {store.folder}: holds a run of 'selfinstruct generate'; name a new folder"
        raise UsageError(message)
    if differences := list(differing_facts(known, facts, SOURCE_NOTES)):
        message = (
            f"--into {store.folder}: was made of other tasks or under other settings ({'; '.join(differences)}); use "
            "the same, or name a new folder"
        )
        raise UsageError(message)


def _fingerprint(tasks: Sequence[Task]) -> str:
    """SHA-256 over the tasks with their ids."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(f"{task_to_json(task)}\n".encode())
    return digest.hexdigest()


def _make_acceptance(store: RunStore, settings: GenerateSettings, to: Language | None, pool: StoredPool) -> JobDecider:
    """Decides by novelty alone: the profile applied the rules, each in the language of its task.

    A translation is compared with tasks of its language: with its original it shares code and names. The others stand
    in the index as empty texts, which nothing is like.
    """
    instructions = store.pool_instructions()
    inherited = (
        text if to is None or language_of(text) == to else "" for text in islice(instructions, store.totals().inherited)
    )
    return JobDecider((), settings.threshold, "unicode", (), pool, chain(inherited, instructions))
