"""Create or reopen a run, and check all input before a model is loaded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.job import Profile
from selfinstruct_local.generate.profiles.registry import PROFILES, check_used, make_profile, prompt_facts
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.reader import fingerprint, read_rows, read_tasks
from selfinstruct_local.models.folder import differing_files
from selfinstruct_local.runs.store import InheritedTask, RunStore
from selfinstruct_local.task import Instance, Task

# Facts that are not compared. The fingerprints of model and prompts are; files and texts show what differs.
PLACES = frozenset({"model_path", "model_files", "prompt_texts"})


def read_seeds(paths: Sequence[Path]) -> list[Task]:
    """Return the seed tasks of all files, in order, with unique IDs.

    Raises:
        UsageError: a file cannot be read or contains no task, or an instruction or output is empty.
    """
    seeds: list[Task] = []
    for path in paths:
        for number, task in enumerate(read_tasks(path), start=1):
            if not task.instruction.strip() or not task.output.strip():
                empty = "instruction" if not task.instruction.strip() else "output"
                message = f"--seeds {path}: task {number} has an empty {empty}; seeds need an instruction and an output"
                raise UsageError(message)
            seeds.append(task)
    ids = [seed.id for seed in seeds]
    if len(set(ids)) < len(ids) or not all(ids):
        seeds = [seed._replace(id=f"seed-{number}") for number, seed in enumerate(seeds)]
    return seeds


def open_run(
    store: RunStore, settings: GenerateSettings, model: Mapping[str, Any], seed_paths: Sequence[Path]
) -> list[Task]:
    """Fix the deciding settings of a new run, or check those of an existing one; return the run's seeds.

    Args:
        store: store of the run.
        settings: settings of this start; an unset window is set to the run's.
        model: facts of the model, see `ChosenModel.facts`.
        seed_paths: seed files.

    Raises:
        UsageError: the seeds or the inherited tasks are invalid, the profile does not use a setting, or the run was
            created with other deciding settings; the message lists them.
    """
    profile = make_profile(settings)
    seeds = read_seeds(seed_paths)
    facts: dict[str, Any] = {
        **settings.deciding(),
        **model,
        **prompt_facts(profile, settings.prompts),
        "seeds_fingerprint": fingerprint(seed_paths),
    }
    known = store.facts()
    if not known:
        check_used(settings)  # an existing run with an unused setting can still be resumed
        _check_inherited(store, profile)
        store.create(facts, seeds)
        return seeds
    if "window" not in settings.model_fields_set:
        settings.window = facts["window"] = known.get("window")
    if differences := list(differing_facts(known, facts, PLACES)):
        message = (
            f"--run {store.folder}: was created with other settings ({'; '.join(differences)}); use the same, name "
            "another folder, or use --fork NEWRUN to start from this pool with the new ones"
        )
        raise UsageError(message)
    return store.seeds()


def differing_facts(known: Mapping[str, Any], facts: Mapping[str, Any], ignored: Iterable[str]) -> Iterator[str]:
    """Yield a phrase per fact that differs between a run and this start; it names differing model files and prompts."""
    for name in sorted((set(facts) | set(known)) - set(ignored)):
        if known.get(name) == facts.get(name):
            continue
        now = _short(facts.get(name, "no such setting"))
        phrase = f"{name.replace('_', ' ')}: {_short(known.get(name))} in the run, {now} now"
        files = [each.get("model_files") for each in (known, facts)]
        if name == "model_fingerprint" and all(files):
            phrase += f" ({', '.join(differing_files(*files))} differ)"
        if name == "prompts_fingerprint":
            phrase = _differing_prompts(known.get("prompt_texts"), facts["prompt_texts"]) or phrase
        yield phrase


def _differing_prompts(known: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Return a phrase that names the differing prompts; empty for runs of older releases, which store no texts."""
    if known is None:
        return ""
    origin = {None: "none", False: "built-in", True: "from --prompts"}
    phrases = []
    for name in sorted(known.keys() | now.keys()):
        before, after = known.get(name, {}), now.get(name, {})
        if before.get("text") != after.get("text"):
            was, is_ = (origin[each.get("own")] for each in (before, after))
            phrases.append(f"{name} ({was} in the run, {is_ if is_ != was else 'another'} now)")
    return f"prompts: {', '.join(phrases)}"


def import_tasks(store: RunStore, path: Path) -> tuple[int, int]:
    """Import the tasks of a file as the pool of an empty run.

    Reads the published programs' `regen.json`, `machine_generated_instructions.jsonl` and
    `machine_generated_instances.jsonl`, and all other formats of `read_rows`. Records with equal instructions are
    merged into one task with their distinct instances. A task without an output is imported as a bare instruction.

    Returns:
        Number of imported tasks, and number of bare instructions among them.

    Raises:
        UsageError: the file cannot be read, or the run already has tasks.
    """
    store.check_unused()
    first: dict[str, InheritedTask] = {}  # by instruction
    cases: dict[str, dict[Instance, None]] = {}
    for row in read_rows(path):
        name = row.task.instruction.strip()
        known = first.setdefault(name, InheritedTask(row.task, {"file": str(path), "row": row.number}))
        if known.task.is_classification is None:
            first[name] = known._replace(task=known.task._replace(is_classification=row.task.is_classification))
        cases.setdefault(name, {}).update((each, None) for each in row.task.instances if each.output.strip())
    tasks = (each._replace(task=each.task._replace(instances=tuple(cases[name]))) for name, each in first.items())
    return store.inherit(tasks), sum(not each for each in cases.values())


def fork(old: RunStore, new: RunStore) -> int:
    """Copy the accepted tasks of a run into the pool of an empty run; return the number of tasks.

    A run that was already forked from the same run is not changed.

    Raises:
        UsageError: both are the same run, or the new one has other contents.
    """
    if old.folder.resolve() == new.folder.resolve():
        message = f"--fork {new.folder}: is the source run; name a new folder"
        raise UsageError(message)
    first = next(new.inherited(), None)
    origin = {"run": str(old.folder.resolve())}
    if first is not None and first.origin.get("run") == origin["run"]:
        return new.totals().inherited
    if first is None and not old.totals().accepted:
        return 0  # without tasks the origin is unknown; `open_run` checks that the run is this one
    new.check_unused("--fork")
    return new.inherit(InheritedTask(task, {**origin, "id": task.id}) for task in old.accepted())


def _check_inherited(store: RunStore, profile: Profile) -> None:
    """Raise if the profile shows whole tasks and an inherited task has no output."""
    if not profile.shows_whole_tasks:
        return
    bare = next((each for each in store.inherited() if not each.task.output), None)
    if bare is not None:
        origin = bare.origin.get("file") or bare.origin.get("run")
        others = " or ".join(name for name, each in PROFILES.items() if not each.shows_whole_tasks)
        message = (
            f"--run {store.folder}: was imported from bare instructions ({origin}), but profile '{profile.name}' shows "
            f"whole tasks; use --profile {others}"
        )
        raise UsageError(message)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) > 24 else text  # noqa: PLR2004 - the first 8 characters identify a fingerprint
