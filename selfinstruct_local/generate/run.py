"""The generation loop: send requests to the engine, store completions, and filter parsed tasks into the pool."""

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
    """A fixed number of jobs; the run ends when all of them are decided.

    Attributes:
        profile: profile of the jobs.
        jobs: number of jobs.
        make_acceptance: returns the decider for a pool.
    """

    profile: Profile
    jobs: int
    make_acceptance: Callable[[StoredPool], JobDecider]


class Observer(Protocol):
    """Receives the events of a run, for a display."""

    def starting(self) -> None:
        """Handle the start of the engine."""

    def started(self) -> None:
        """Handle a ready engine."""

    def received(self, completions: Sequence[Completion]) -> None:
        """Handle completions that were received and stored."""

    def decided(self, jobs: Sequence[DecidedJob]) -> None:
        """Handle jobs that were decided and committed."""

    def scoring(self, tasks: int) -> None:
        """Handle the start of the nearest-neighbor search for `tasks` accepted tasks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        reason: `done`, `stalled`, `interrupted`, or the used-up budget: `tokens`, `requests` or `minutes`.
        accepted: tasks accepted in this session.
        meter: metrics of the session; None if no engine was needed.
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
    """Generate until `settings.num` tasks are accepted, the run stalls, a budget is used up, or a signal interrupts it.

    With `work` only its jobs are run, and `num`, `patience` and the profile of the settings have no effect.

    Stored completions are never regenerated, and stored decisions are final.

    Raises:
        UserFacingError: the engine could not start, or died and could not be restarted.
        sqlite3.Error: the disk is full or fails; `RunStore` explains it.
    """
    pool = store.pool()
    before, spent = len(pool), store.totals()
    done = spent.jobs >= work.jobs if work else before >= settings.num
    ended = "done" if done else spent_budget(settings, spent.completion_tokens, spent.completions, 0)
    if ended:
        if store.unscored():  # the last session ended before the scoring
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
        # Runs while the engine loads its model.
        acceptance = make_acceptance(store, settings, seeds, pool, work)
        scheduler = make_scheduler(store, settings, seeds, acceptance, work)
        engine.wait_until_ready(lambda: interrupt.signum is None)
        watcher.started()
        meter = RunMetrics(engine.capacity)
        session = RunLoop(
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
    """Return a scheduler that resumes a run after its last decision, with the stored undecided completions.

    Near copies of tasks that a job may see are rejected before more tokens are spent on them, except with `work`.
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
    """Return the decider for the jobs of a run, with an index of seeds and pool."""
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
class RunLoop:
    """The state of the loop: its parts, what earlier starts used, and the jobs since the last accepted task."""

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
    jobs: int | None = None  # total number of jobs, if fixed
    stalled: int = 0  # consecutive jobs without an accepted task

    def loop(self, engine: Engine) -> str:
        """Run until there is a reason to end, and return the reason.

        Raises:
            EngineDeadError: the engine died and could not be restarted.
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
        """Store completions and continue their jobs; requeue the requests of aborted ones."""
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
        """Decide the finished jobs in order, up to the one that ends the run, and commit them together."""
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
        """Return `done` or `stalled` if the decisions so far end the run, or ""."""
        if self.jobs is not None:
            return "done" if self.scheduler.decided >= self.jobs else ""
        if len(self.acceptance.pool) >= self.settings.num:
            return "done"
        if self.stalled >= self.settings.patience:
            return "stalled"
        return ""


def spent_budget(settings: GenerateSettings, tokens: int, requests: int, seconds: float) -> str:
    """Return the used-up budget: `tokens` or `requests` of all starts, or `minutes` of this start; "" for none."""
    if settings.token_budget is not None and tokens >= settings.token_budget:
        return "tokens"
    if settings.request_budget is not None and requests >= settings.request_budget:
        return "requests"
    return "minutes" if settings.minutes is not None and seconds >= settings.minutes * 60 else ""


def export(store: RunStore) -> Path:
    """Write the accepted tasks to `alpaca.json` and return its path; the same pool gives the same bytes."""
    path = store.folder / EXPORT
    with open_writer(path) as writer:
        for record in alpaca_records(store.accepted()):
            writer.write(record)
    return path
