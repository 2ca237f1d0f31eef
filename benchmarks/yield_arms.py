"""The arms of the yield benchmark: their settings, when each has enough, and the running of one to its end.

Leans on the loop of `generate/run.py` and the run store; what a run gave is counted in `yield_report.py`.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from selfinstruct_local.config import GenerateSettings, load_settings
from selfinstruct_local.engine import Completion, Engine, FinishReason, Request
from selfinstruct_local.generate.launch import ChosenModel, fit_to_model, launch
from selfinstruct_local.generate.meter import Meter
from selfinstruct_local.generate.opening import open_run
from selfinstruct_local.generate.run import Session, export, make_acceptance, make_scheduler
from selfinstruct_local.generate.scheduler import Scheduler
from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.store import DecidedJob, RunStore

IN_FLIGHT = 32
# Room in the cache for that many contexts of 2,048 tokens: a preempted request is written twice.
ENGINE = {"in_flight": IN_FLIGHT, "memory_gb": 3}
ENDLESS = 10**9  # stop conditions are those of the arm, not those of the settings
SMALL_TOKENS = 8_000  # of the arms that are only measured against one another
# Jobs that a first guess of their tokens weighs as much as.
GUESS_WEIGHT = 4
# The default is made for long runs: with 256 jobs ahead, none of a few dozen would see the pool.
SHORT_WINDOW = 16
OURS = "ours"
BASELINE = "alpaca-2023"
PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Arm:
    """What is measured: settings, and when it has enough.

    Attributes:
        name: of its run folder and its row.
        flags: of `selfinstruct generate`; what they leave open is as there.
        tokens_per_job: a first guess, to ask for no more jobs than are needed; the run corrects it.
        tokens: to be generated at least.
        accepted: tasks to be accepted at least.
        cap: tokens after which it ends all the same.
    """

    name: str
    flags: Mapping[str, Any]
    tokens_per_job: int
    tokens: int
    accepted: int = 0
    cap: int = ENDLESS

    def settings(self, model: ChosenModel) -> GenerateSettings:
        """As `selfinstruct generate` resolves them for the model."""
        flags = {"num": ENDLESS, "patience": ENDLESS, **ENGINE, **self.flags}
        return fit_to_model(load_settings(GenerateSettings, None, flags), model, None, flags)

    @property
    def end(self) -> str:
        """The stop condition in words."""
        wanted = [f"{self.tokens:,} tokens"] if self.tokens else []
        if not self.accepted:
            return wanted[0]
        return f"{' and '.join([*wanted, f'{self.accepted:,} accepted'])}, or {self.cap:,} tokens"


def make_arms(tokens: int, accepted: int, baseline_accepted: int, cap: int) -> list[Arm]:
    """The arms in the order of the report; the first is the one that the others are held against."""
    few = min(tokens, SMALL_TOKENS)
    short = {"window": SHORT_WINDOW}
    alpaca, instructions = {"profile": "alpaca", **short}, {"profile": "self-instruct", **short}
    return [
        Arm(BASELINE, {"profile": "alpaca-2023"}, 1100, tokens, baseline_accepted, cap),
        Arm("alpaca-2023-cool", {"profile": "alpaca-2023", "temperature": 0.7}, 1100, tokens),
        Arm("self-instruct-2022", {"profile": "self-instruct-2022", **short}, 1500, tokens),
        Arm(OURS, {}, 400, 0, accepted, cap),
        Arm("alpaca", alpaca, 500, few),
        Arm("alpaca-structured", {**alpaca, "structured": True}, 500, few),
        Arm("self-instruct", instructions, 1000, few),
        Arm("self-instruct-structured", {**instructions, "structured": True}, 1000, few),
    ]


class Gate:
    """The requests of a run, held back where their jobs are not needed to bring the arm to its end.

    A scheduler opens jobs far ahead. Here only as many are let through as the tokens still wanted will bear, and the
    run is over when all of those are decided, with nothing in flight that would have to be thrown away.
    """

    def __init__(self, arm: Arm, scheduler: Scheduler, store: RunStore, accepted: Callable[[], int]) -> None:
        """Takes a run up where its journal ends.

        Args:
            arm: says how much is wanted.
            scheduler: makes the requests.
            store: has what was asked before.
            accepted: number of accepted tasks as it is now.
        """
        self._arm = arm
        self._scheduler = scheduler
        self._accepted = accepted
        self._held: deque[Request] = deque()
        self._received: Counter[int] = Counter()  # tokens by job, of those that are open
        stored = store.undecided_completions().values()
        self._decided_tokens = store.totals().completion_tokens - sum(each.completion_tokens for each in stored)
        self._settled = scheduler.decided
        # What was asked before the run broke off is finished in any case.
        self._limit = max([scheduler.decided, *(each.key.job + 1 for each in stored)])
        self.note(stored)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Request | None:
        while self._limit - self._scheduler.decided < IN_FLIGHT and self._wants_more():
            self._limit += 1
        if self._held and self._held[0].key.job < self._limit:
            return self._held.popleft()
        # Held ones are in the order of their jobs; a later step of an earlier job may stand behind them.
        while (request := next(self._scheduler)) is not None:
            if request.key.job < self._limit:
                return request
            self._held.append(request)
        return None

    def note(self, completions: Iterable[Completion]) -> None:
        """Counts what arrived."""
        for each in completions:
            if each.finish_reason is not FinishReason.ABORT:
                self._received[each.key.job] += each.completion_tokens

    @property
    def finished(self) -> bool:
        """Whether the arm has enough and all it asked for is decided."""
        return self._scheduler.decided >= self._limit and not self._wants_more()

    def _wants_more(self) -> bool:
        expected = self._expected_tokens()
        if expected >= self._arm.cap:
            return False
        return expected < self._arm.tokens or self._accepted() < self._arm.accepted

    def _expected_tokens(self) -> float:
        """Tokens of all jobs that were let through, when they will be decided."""
        decided = self._scheduler.decided
        while self._settled < decided:
            self._decided_tokens += self._received.pop(self._settled, 0)
            self._settled += 1
        guessed = GUESS_WEIGHT * self._arm.tokens_per_job
        mean = (guessed + self._decided_tokens) / (GUESS_WEIGHT + decided)
        return self._decided_tokens + sum(max(mean, self._received[job]) for job in range(decided, self._limit))


@dataclass
class Progress:
    """A line on stderr now and then."""

    name: str
    tokens: int
    accepted: int
    jobs: int
    _said: float = field(default_factory=time.monotonic)

    def starting(self) -> None:
        """The engine was told to start."""

    def started(self) -> None:
        """The engine is ready."""

    def received(self, completions: Sequence[Completion]) -> None:
        """Counts tokens."""
        self.tokens += sum(each.completion_tokens for each in completions)

    def decided(self, jobs: Sequence[DecidedJob]) -> None:
        """Counts jobs and what they gave."""
        self.jobs += len(jobs)
        self.accepted += sum(candidate.verdict.keep for job in jobs for candidate in job.candidates)

    def scoring(self, tasks: int) -> None:
        """The arm is at its end."""

    def say_if_due(self) -> None:
        """The line, unless it was there a moment ago; long completions would else leave minutes of silence."""
        if time.monotonic() - self._said > PROGRESS_SECONDS:
            self.say()

    def say(self, what: str = "") -> None:
        """The line."""
        self._said = time.monotonic()
        counts = f"{self.tokens:,} tokens, {self.jobs} jobs decided, {self.accepted} accepted"
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {counts}{what}", file=sys.stderr, flush=True)


class KeptEngine:
    """The one engine of all arms, started when the first of them asks for it."""

    def __init__(self, model: ChosenModel, settings: GenerateSettings, log: Path, interrupt: Interrupt) -> None:
        """Starts nothing yet.

        Args:
            model: to be served.
            settings: that decide the engine; the same for all arms.
            log: file for what the engine writes.
            interrupt: ends the wait for it.
        """
        self._model = model
        self._settings = settings
        self._log = log
        self._interrupt = interrupt
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        """The engine, ready."""
        if self._engine is None:
            self._engine = launch(self._model, self._settings, self._log)
            self._engine.wait_until_ready(lambda: self._interrupt.signum is None)
        return self._engine

    def close(self) -> None:
        """Ends it, if it was started."""
        if self._engine is not None:
            self._engine.close()


def run_arm(
    arm: Arm,
    folder: Path,
    settings: GenerateSettings,
    facts: Mapping[str, str | None],
    engine: Callable[[], Engine],
    interrupt: Interrupt,
) -> bool:
    """Brings the run of an arm to its end; False if a signal came before that.

    Args:
        arm: what is wanted of it.
        folder: of the run; what stands there is gone on with.
        settings: of the arm.
        facts: of the model.
        engine: gives the engine that is ready, and starts it if nobody asked before.
        interrupt: looked at after every batch.

    Raises:
        UserFacingError: the run was made under other settings, or the engine died for good.
    """
    with RunStore(folder) as store:
        seeds = open_run(store, settings, facts, [seed_file()])
        pool = store.pool()
        acceptance = make_acceptance(store, settings, seeds, pool)
        scheduler = make_scheduler(store, settings, seeds, acceptance)
        gate = Gate(arm, scheduler, store, lambda: len(pool))
        totals = store.totals()
        progress = Progress(arm.name, totals.completion_tokens, totals.accepted, totals.jobs)
        if not gate.finished:
            writer = engine()
            progress.say(f"; wanted: {arm.end}")
            number = store.begin_session(settings.executing(), writer.description)
            meter = Meter(writer.capacity)
            session = Session(number, store, settings, scheduler, acceptance, meter, progress, interrupt)
            batches = writer.generate(meter.watch(gate))
            try:
                while not gate.finished and interrupt.signum is None:
                    with meter.timing("engine"):
                        finished = next(batches)
                    gate.note(finished)
                    session.receive(finished)
                    session.decide()
                    progress.say_if_due()
            finally:
                meter.stop()
                batches.close()  # with nothing in flight the engine stays
                reason = "done" if gate.finished else "interrupted"
                store.end_session(number, meter.elapsed, reason, meter.measured())
        acceptance.score(store, lambda: True)
        export(store)
        progress.say("; done" if gate.finished else "; broken off")
        return gate.finished
