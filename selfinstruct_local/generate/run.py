"""The loop: requests to the engine, completions to the journal, drafts through the filter into the pool."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfinstruct_local import __version__
from selfinstruct_local.engines.base import Completion, Engine
from selfinstruct_local.errors import COMMITTED_STANDS, EngineDeadError
from selfinstruct_local.filters.rulesets import refuses_echoes, rule_set
from selfinstruct_local.generate.decision import JobDecider
from selfinstruct_local.generate.job import Profile
from selfinstruct_local.generate.metrics import RunMetrics
from selfinstruct_local.generate.profiles.registry import make_profile
from selfinstruct_local.generate.scheduler import Scheduler
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.reader import alpaca_records
from selfinstruct_local.io.writer import open_writer
from selfinstruct_local.languages.base import TOKENIZERS
from selfinstruct_local.runs.store import DecidedJob, RunStore, StoredPool
from selfinstruct_local.task import Task

EXPORT = "alpaca.json"


@dataclass(frozen=True, slots=True)
class Work:
    """Jobs that are known beforehand: the run ends when all of them are decided, whatever was accepted.

    Attributes:
        profile: makes them.
        jobs: how many there are.
        make_acceptance: gives what decides them, from the pool.
    """

    profile: Profile
    jobs: int
    make_acceptance: Callable[[StoredPool], JobDecider]


class Observer(Protocol):
    """Told what happens, for a display."""

    def starting(self) -> None:
        """The engine was told to start."""

    def started(self) -> None:
        """The engine is ready."""

    def received(self, completions: Sequence[Completion]) -> None:
        """Completions arrived and were stored."""

    def decided(self, jobs: Sequence[DecidedJob]) -> None:
        """Jobs were decided and committed."""

    def scoring(self, tasks: int) -> None:
        """So many accepted tasks are about to get their nearest neighbours."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        reason: `done`, `stalled`, `interrupted`, or the budget that is spent: `tokens`, `requests` or `minutes`.
        accepted: tasks this session accepted.
        meter: where its time went; None when no engine was needed.
    """

    reason: str
    accepted: int = 0
    meter: RunMetrics | None = None


def run(
    store: RunStore,
    settings: GenerateSettings,
    seeds: Sequence[Task],
    start_engine: Callable[[], Engine],
    watcher: Observer,
    interrupt: Interrupt,
    *,
    work: Work | None = None,
) -> Outcome:
    """Generates until `settings.num` tasks are accepted, nothing new comes, or a signal asks for an end.

    With `work` it does that and no other: then `num`, `patience` and the profile of the settings say nothing.

    Whatever was stored before is used: completions are not asked for twice and decisions stand.

    Raises:
        UserFacingError: the engine could not start, or died and did not come back.
        sqlite3.Error: the disk is full or fails; `RunStore` explains it.
    """
    pool = store.pool()
    before, spent = len(pool), store.totals()
    done = spent.jobs >= work.jobs if work else before >= settings.num
    ended = "done" if done else spent_budget(settings, spent.completion_tokens, spent.completions, 0)
    if ended:
        if store.unscored():  # the last session ended before it came to that
            acceptance = make_acceptance(store, settings, seeds, pool, work)
            acceptance.score(store, lambda: interrupt.signum is None, watcher.scoring)
        export(store)
        return Outcome(ended)
    engine = start_engine()
    watcher.starting()
    versions = {"selfinstruct-local": __version__, "python": platform.python_version()}
    number = store.begin_session(settings.executing(), {**engine.description, **versions})
    meter = RunMetrics(engine.capacity)
    reason = "failed"
    try:
        # Done while the engine loads its model.
        acceptance = make_acceptance(store, settings, seeds, pool, work)
        scheduler = make_scheduler(store, settings, seeds, acceptance, work)
        engine.wait_until_ready(lambda: interrupt.signum is None)
        watcher.started()
        meter = RunMetrics(engine.capacity)
        session = Session(
            number,
            store,
            settings,
            scheduler,
            acceptance,
            meter,
            watcher,
            interrupt,
            tokens_before=spent.completion_tokens,
            requests_before=spent.completions,
            jobs=work.jobs if work else None,
        )
        reason = session.loop(engine)
        engine.close()
        acceptance.score(store, lambda: interrupt.signum is None, watcher.scoring)
    finally:
        engine.close()
        store.end_session(number, meter.elapsed, reason, meter.measured())
    export(store)
    return Outcome(reason, len(pool) - before, meter)


def make_scheduler(
    store: RunStore,
    settings: GenerateSettings,
    seeds: Sequence[Task],
    acceptance: JobDecider,
    work: Work | None = None,
) -> Scheduler:
    """The scheduler of a run where its decisions ended, with the completions that wait for theirs.

    Near copies of what a job may see cost it no more tokens, except where what it makes is told beforehand.
    """
    return Scheduler(
        work.profile if work else make_profile(settings),
        seeds=seeds,
        run_seed=settings.seed,
        window=settings.window or 1,
        pool=acceptance.pool,
        pool_sizes=store.pool_sizes(),
        stored=store.undecided_completions(),
        jobs=work.jobs if work else None,
        find_near_copies=None if work else acceptance.find_near_copies,
    )


def make_acceptance(
    store: RunStore, settings: GenerateSettings, seeds: Sequence[Task], pool: StoredPool, work: Work | None = None
) -> JobDecider:
    """What decides the jobs of a run, with an index over seeds and pool."""
    if work is not None:
        return work.make_acceptance(pool)
    rules = rule_set(settings.rules, settings.lang, settings.thresholds())
    max_echo = settings.max_echo if refuses_echoes(settings.rules) else None
    return JobDecider(
        rules,
        settings.threshold,
        TOKENIZERS[settings.lang],
        seeds,
        pool,
        store.pool_instructions(),
        max_echo=max_echo,
        lang=settings.lang,
    )


@dataclass(slots=True)
class Session:
    """What the loop works with, what earlier starts spent, and how long nothing was accepted."""

    number: int
    store: RunStore
    settings: GenerateSettings
    scheduler: Scheduler
    acceptance: JobDecider
    meter: RunMetrics
    watcher: Observer
    interrupt: Interrupt
    tokens_before: int = 0
    requests_before: int = 0
    jobs: int | None = None  # all there are, where that is known
    stalled: int = 0  # jobs in a row without an accepted task

    def loop(self, engine: Engine) -> str:
        """Turns until there is a reason to end, and gives it.

        Raises:
            EngineDeadError: the engine died and did not come back.
        """
        batches = engine.generate(self.meter.watch(self.scheduler))
        try:
            while not (reason := self._reason_to_end()):
                with self.meter.timing("engine"):
                    finished = next(batches)
                self.receive(finished)
                self.decide()
        except EngineDeadError as error:
            message = f"{error}; {COMMITTED_STANDS}"
            raise EngineDeadError(message) from error
        finally:
            self.meter.stop()
            batches.close()
        return reason

    def receive(self, finished: Sequence[Completion]) -> None:
        """Stores completions and lets their jobs go on; aborted ones go back in line."""
        self.meter.received(finished)
        answers = [completion for completion in finished if not self.scheduler.ask_again(completion)]
        if not answers:
            return
        with self.meter.timing("store"):
            self.store.add_completions(self.number, answers)
        self.watcher.received(answers)
        with self.meter.timing("decide"):
            for completion in answers:
                self.scheduler.receive(completion)

    def decide(self) -> None:
        """Decides all jobs whose turn it is and commits them together; stops at the one that reaches the end."""
        decided, sizes = [], []
        with self.meter.timing("decide"):
            for job, drafts in self.scheduler.due():
                decision = self.acceptance.decide(job, drafts)
                sizes.append(len(self.acceptance.pool))
                decided.append(decision)
                accepted = any(candidate.verdict.keep for candidate in decision.candidates)
                self.stalled = 0 if accepted else self.stalled + 1
                if self._end_reached():
                    break
        if not decided:
            return
        with self.meter.timing("store"):
            self.store.commit_jobs(decided)
        self.scheduler.settle(sizes)
        self.watcher.decided(decided)

    def _reason_to_end(self) -> str:
        reason = self._end_reached() or spent_budget(
            self.settings,
            self.tokens_before + self.meter.completion_tokens,
            self.requests_before + self.meter.requests,
            self.meter.elapsed,
        )
        return reason or ("interrupted" if self.interrupt.signum is not None else "")

    def _end_reached(self) -> str:
        """Whether the decisions so far are an end, wherever else they stand."""
        if self.jobs is not None:
            return "done" if self.scheduler.decided >= self.jobs else ""
        if len(self.acceptance.pool) >= self.settings.num:
            return "done"
        if self.stalled >= self.settings.patience:
            return "stalled"
        return ""


def spent_budget(settings: GenerateSettings, tokens: int, requests: int, seconds: float) -> str:
    """The budget that is spent: `tokens` or `requests`, over all starts, or `minutes`, of this one; empty for none."""
    if settings.token_budget is not None and tokens >= settings.token_budget:
        return "tokens"
    if settings.request_budget is not None and requests >= settings.request_budget:
        return "requests"
    return "minutes" if settings.minutes is not None and seconds >= settings.minutes * 60 else ""


def export(store: RunStore) -> Path:
    """Writes `alpaca.json` from what the run accepted: the same bytes for the same pool."""
    path = store.folder / EXPORT
    with open_writer(path) as writer:
        for record in alpaca_records(store.accepted()):
            writer.write(record)
    return path
