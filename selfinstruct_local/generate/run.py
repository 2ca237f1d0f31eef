"""The loop: requests to the engine, completions to the journal, drafts through the filter into the pool.

`prepare_run` does all that can fail on bad input, before a model loads; `run` is the flat loop itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from selfinstruct_local.config import GenerateSettings
from selfinstruct_local.engine.base import Completion, Engine
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.filter.decide import Decider
from selfinstruct_local.filter.rules import RULE_SETS
from selfinstruct_local.generate.interrupt import Interrupt
from selfinstruct_local.generate.job import Draft, Job, Profile
from selfinstruct_local.generate.profiles import make_profile, prompts_fingerprint
from selfinstruct_local.generate.scheduler import Scheduler
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.recordio import open_writer
from selfinstruct_local.store import Candidate, RunStore, candidate_id
from selfinstruct_local.taskfiles import alpaca_records, fingerprint, read_tasks
from selfinstruct_local.tasks import Task, Verdict

EXPORT = "alpaca.json"


class Watcher(Protocol):
    """Told what happens, for a display."""

    def received(self, completions: Sequence[Completion]) -> None:
        """Completions arrived and were stored."""

    def decided(self, candidates: Sequence[Candidate]) -> None:
        """A job was decided and committed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        reason: `done`, `barren` or `interrupted`.
        seconds: of the loop, without starting the engine.
        accepted: tasks this session accepted.
        completion_tokens: tokens this session generated in whole completions.
    """

    reason: str
    seconds: float
    accepted: int
    completion_tokens: int


def read_seeds(paths: Sequence[Path], profile: Profile) -> list[Task]:
    """The seeds of all files, in order, with ids that are unique.

    Raises:
        WrongUseError: a file cannot be read, an instruction is empty, or there are too few to fill a prompt.
    """
    seeds: list[Task] = []
    for path in paths:
        for number, task in enumerate(read_tasks(path), start=1):
            if not task.instruction.strip() or not task.output.strip():
                empty = "instruction" if not task.instruction.strip() else "output"
                message = f"--seeds {path}: task {number} has an empty {empty}; a seed shows the model a whole task"
                raise WrongUseError(message)
            seeds.append(task)
    if len(seeds) < profile.demonstrations:
        files = ", ".join(map(str, paths))
        message = (
            f"--seeds {files}: {len(seeds)} task(s), but profile '{profile.name}' shows "
            f"{profile.demonstrations} in every prompt; add seeds"
        )
        raise WrongUseError(message)
    ids = [seed.id for seed in seeds]
    if len(set(ids)) < len(ids) or not all(ids):
        seeds = [
            Task(seed.instruction, seed.instances, seed.is_classification, f"seed-{number}")
            for number, seed in enumerate(seeds)
        ]
    return seeds


def open_run(store: RunStore, settings: GenerateSettings, model: ModelFolder, seed_paths: Sequence[Path]) -> list[Task]:
    """Fixes what decides a new run, or checks that an old one is decided by the same; gives its seeds.

    Raises:
        WrongUseError: the seeds will not do, or the run was made under other deciding settings; the message
            lists them.
    """
    profile = make_profile(settings)
    seeds = read_seeds(seed_paths, profile)
    facts: dict[str, Any] = {
        **settings.deciding(),
        "model_path": str(model.path),
        "model_fingerprint": model.fingerprint,
        "prompts_fingerprint": prompts_fingerprint(profile),
        "seeds_fingerprint": fingerprint(seed_paths),
    }
    known = store.facts()
    if not known:
        store.create(facts, seeds)
        return seeds
    # The same weights may lie elsewhere; it is their fingerprint that decides.
    differences = [
        f"{name.replace('_', ' ')}: {_short(known.get(name))} in the run, {_short(facts.get(name))} now"
        for name in sorted((set(facts) | set(known)) - {"model_path"})
        if known.get(name) != facts.get(name)
    ]
    if differences:
        message = (
            f"--run {store.folder}: was made under other settings ({'; '.join(differences)}); "
            "use the same, or name another folder"
        )
        raise WrongUseError(message)
    return store.seeds()


def run(
    store: RunStore,
    settings: GenerateSettings,
    seeds: Sequence[Task],
    start_engine: Callable[[], Engine],
    watcher: Watcher,
    interrupt: Interrupt,
) -> Outcome:
    """Generates until `settings.num` tasks are accepted, nothing new comes, or a signal asks for an end.

    Whatever was stored before is used: completions are not asked for twice and decisions stand.
    """
    accepted = list(store.accepted())
    if len(accepted) >= settings.num:
        export(store)
        return Outcome("done", 0.0, 0, 0)
    pool_ids = [task.id for task in [*seeds, *accepted]]
    index = NoveltyIndex(threshold=settings.threshold)
    index.add([task.instruction for task in [*seeds, *accepted]])
    # The kernels compile at their first use: now, not while the engine waits.
    index.nearest(seeds[0].instruction, 1)
    decider = Decider(RULE_SETS[settings.rules or settings.profile], index)
    scheduler = Scheduler(
        make_profile(settings),
        seeds=seeds,
        run_seed=settings.seed,
        window=settings.window or 1,
        accepted=accepted,
        accepted_per_job=store.accepted_per_job(),
        stored=store.undecided_completions(),
    )
    engine = start_engine()
    session = store.begin_session(settings.executing(), engine.description)
    started = time.monotonic()
    total, barren, tokens, reason = len(accepted), 0, 0, ""
    completions = engine.generate(scheduler)
    try:
        for finished in completions:
            store.add_completions(session, finished)
            tokens += sum(completion.completion_tokens for completion in finished)
            watcher.received(finished)
            for completion in finished:
                scheduler.receive(completion)
            for job, drafts in scheduler.due():
                candidates = _decide(decider, job, drafts, pool_ids)
                store.commit_job(job.number, job.shown, candidates)
                taken = [each.task for each in candidates if each.verdict.keep]
                scheduler.settle(job, taken)
                watcher.decided(candidates)
                total += len(taken)
                barren = 0 if taken else barren + 1
                if total >= settings.num or barren >= settings.patience:
                    break
            if total >= settings.num:
                reason = "done"
            elif barren >= settings.patience:
                reason = "barren"
            elif interrupt.signum is not None:
                reason = "interrupted"
            if reason:
                break
    finally:
        completions.close()
        engine.close()
    seconds = time.monotonic() - started
    store.end_session(session, seconds, reason)
    export(store)
    return Outcome(reason, seconds, total - len(accepted), tokens)


def export(store: RunStore) -> Path:
    """Writes `alpaca.json` from what the run accepted: the same bytes for the same pool."""
    path = store.folder / EXPORT
    with open_writer(path) as writer:
        for record in alpaca_records(store.accepted()):
            writer.write(record)
    return path


def _decide(decider: Decider, job: Job, drafts: Sequence[Draft], pool_ids: list[str]) -> list[Candidate]:
    """Verdicts for the drafts of a job; accepted tasks get their ids and join `pool_ids`."""
    candidates = []
    for position, draft in enumerate(drafts):
        if draft.rule:
            verdict = Verdict(keep=False, rule=draft.rule, detail=draft.detail)
            candidates.append(Candidate(draft.task, verdict))
            continue
        (verdict,) = decider.decide_scored([draft.task])
        neighbor = None if verdict.neighbor is None else pool_ids[verdict.neighbor]
        name = candidate_id(job.number, position)
        task = Task(draft.task.instruction, draft.task.instances, draft.task.is_classification, name)
        if verdict.keep:
            pool_ids.append(name)
        candidates.append(Candidate(task, verdict, neighbor))
    return candidates


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) > 24 else text  # noqa: PLR2004 - fingerprints are shown by their head
