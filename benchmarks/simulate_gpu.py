"""Simulated, never measured: 52,000 tasks from one and from eight H100s, the published loop beside this one.

    python benchmarks/simulate_gpu.py

A discrete-event model of continuous batching. The real `Scheduler` draws the requests, takes the completions and
orders the decisions, in the loop of `generate/run.py`. Modelled are the engine (datasheets; a decoding step reads the
weights and the cache once), how long completions are and how many tasks are accepted (assumed, below). All streams
are seeded: the same figures come out every time. First of all the model is put beside published measurements.
"""

import heapq
import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import NamedTuple

from gpu_model import (
    EFFICIENCY,
    H100,
    LLAMA_7B,
    LLAMA_8B,
    MEMORY_SHARE,
    PREFILL_SHARE,
    SEQUENCE_SECONDS,
    InFlight,
    Model,
    Rates,
    Replica,
    checks_table,
    rates,
)
from results import table, write_section

from selfinstruct_local.engines.base import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.generate.job import Job, ParsedTask, Steps, stream_seed
from selfinstruct_local.generate.scheduler import Scheduler
from selfinstruct_local.task import Task

SEED = 0
WANTED = 52_000  # accepted tasks, as in the published data
SEED_TASKS = 175

IN_FLIGHT = 256  # C of one engine; also its max_num_seqs
WINDOW_FACTOR = 8
DECISION_RATES = (500, 2_000)  # jobs a second: reading, rules, novelty and commit, one job after the other
PUBLISHED_BATCH, PUBLISHED_PROCESSES = 5, 16  # the published program's defaults
# One comparison by google's rouge_score, tokens ready: our timing, section "Filter: alpaca" of RESULTS.md. The
# published program starts its processes anew for every candidate; that is left out, in its favour.
COMPARISON_SECONDS = 20.2e-6

# Prompts of profile `alpaca` over the seeds have 1,694 characters on average, nine in ten 1,320 to 2,090; at four
# characters a token, and a little more for the tasks of a pool. The engine's cache of common heads is left out.
PROMPT_TOKENS = (330, 570)
# Assumed: of the tasks asked for, this share can be read; of those, this share is accepted into an empty pool, and
# into one of 52,000, where the obvious has been said. Both loops do the same jobs, so it weighs on both alike.
READ_SHARE = 0.7
ACCEPTED_FIRST, ACCEPTED_LAST = 0.8, 0.55


class Shape(NamedTuple):
    """What completions are like: log-normal in tokens, cut at `limit`, with so many tasks asked for.

    A `stuck` share of them runs to the limit, whatever the law says.
    """

    median: float
    sigma: float
    limit: int
    stuck: float = 0.0
    tasks: int = 5


# Assumed: five tasks of about 110 tokens, headings and all (the published tasks have 10 words of instruction and some
# 60 of input and output), one completion in seventeen cut at the limit.
SHAPE = Shape(530, 0.4, 1_000)
# What the published prompt asks for: 20 tasks. A context of 2,048 has room for about 1,550 tokens, so for 14 of these.
PUBLISHED_SHAPE = Shape(2_120, 0.4, 1_550, tasks=14)


class Work(NamedTuple):
    """What there is to do for a job, and the luck of each task that can be read out of it."""

    prompt: int
    length: int
    lucks: tuple[float, ...]


@cache
def work_of(job: int, shape: Shape) -> Work:
    """The same for every loop and every engine."""
    stream = random.Random(stream_seed(SEED, job, "work", 0))  # noqa: S311 - a simulation
    length = min(max(round(stream.lognormvariate(0, shape.sigma) * shape.median), 1), shape.limit)
    if stream.random() < shape.stuck:
        length = shape.limit
    readable = sum(stream.random() < READ_SHARE for _ in range(shape.tasks))
    return Work(stream.randint(*PROMPT_TOKENS), length, tuple(stream.random() for _ in range(readable)))


def accepted_share(pool: int) -> float:
    """The share of readable tasks that a pool of this size still takes."""
    return ACCEPTED_FIRST + (ACCEPTED_LAST - ACCEPTED_FIRST) * pool / WANTED


class SimulatedEngine:
    """`Engine.generate` over replicas and a clock: `now` is the time of the loop, which it may move on itself."""

    def __init__(self, replicas: Sequence[Replica], capacity: int, shape: Shape) -> None:
        self.now = 0.0
        self._slot_seconds = 0.0  # of requests that were answered
        self._replicas = replicas
        self._capacity = capacity
        self._shape = shape
        self._in_flight = 0
        self._submitted: dict[int, float] = {}
        self._agenda: list[tuple[float, int]] = []  # (clock, replica) of those with work
        self._ended: list[tuple[float, int]] = []  # (time, job) not yet handed out

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """As vLLM's engine process: it goes on while the loop decides, and is served again after that."""
        source = iter(requests)
        while True:
            while self._agenda and self._agenda[0][0] < self.now:
                self._step()
            while self._in_flight < self._capacity and (request := next(source)) is not None:
                self._submit(request)
            while not self._ended or (self._agenda and self._agenda[0][0] < self._ended[0][0]):
                self._step()
            self.now = max(self.now, self._ended[0][0])
            finished = []
            while self._ended and self._ended[0][0] <= self.now:
                ended, job = heapq.heappop(self._ended)
                self._slot_seconds += ended - self._submitted.pop(job)
                finished.append(self._completion(job))
            self._in_flight -= len(finished)
            yield finished

    @property
    def open_requests(self) -> int:
        """Requests that are not answered."""
        return len(self._submitted)

    def slot_seconds(self) -> float:
        """Time that slots have held a request, up to now."""
        return self._slot_seconds + sum(self.now - submitted for submitted in self._submitted.values())

    def _submit(self, request: Request) -> None:
        job = request.key.job
        work = work_of(job, self._shape)
        number = min(range(len(self._replicas)), key=lambda number: self._replicas[number].held)
        replica = self._replicas[number]
        if not replica.held:
            replica.clock = max(replica.clock, self.now)
            heapq.heappush(self._agenda, (replica.clock, number))
        replica.waiting.append(InFlight(job, work.prompt, work.length))
        self._submitted[job] = self.now
        self._in_flight += 1

    def _step(self) -> None:
        _, number = heapq.heappop(self._agenda)
        replica = self._replicas[number]
        for sequence in replica.step():
            heapq.heappush(self._ended, (replica.clock, sequence.job))
        if replica.held:
            heapq.heappush(self._agenda, (replica.clock, number))

    def _completion(self, job: int) -> Completion:
        work = work_of(job, self._shape)
        reason = FinishReason.LENGTH if work.length == self._shape.limit else FinishReason.STOP
        return Completion(RequestKey(job, STAGE, 0), "", reason, work.prompt, work.length)


STAGE = "tasks"
SAMPLING = Sampling(temperature=0.7, top_p=0.95, max_tokens=SHAPE.limit)
SEEDS = [Task.single(f"Seed task {number}", output="Done.") for number in range(SEED_TASKS)]


class SimulatedProfile:
    """One request a job, as profile `alpaca`; its drafts are bare names."""

    name = "simulated"
    demonstrations = 3
    shows_whole_tasks = True
    prompts = ()

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def steps(self, job: Job) -> Steps:
        """Draws demonstrations as a real job does, and reads as many tasks as the job's work says."""
        job.demonstrate(self.demonstrations, machine_made=1, stage=STAGE)
        (completion,) = yield [job.request(STAGE, 0, "", SAMPLING)]
        readable = len(work_of(completion.key.job, self._shape).lucks)
        return [ParsedTask(Task(f"Task {job.number}.{place}")) for place in range(readable)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulated run came to.

    Attributes:
        seconds: from the first request to the last decision.
        jobs: decided; all figures but `unused` are about these.
        tokens: of their completions.
        running: requests running in an engine, on average over the time.
        empty: share of the engines' time with nothing running.
        unfilled: share of all slots' time from an answer's end to the next request, or without one at all; in the
            published loop, where nobody fills them, not asked.
        seen: share of the pool at the decision of a job that its prompt could draw from, on average.
        blind: share of the jobs whose prompt could draw from no accepted task at all.
        unused: requests asked for and not decided at the end.
        preempted: how often a request gave way in a full cache.
    """

    seconds: float
    jobs: int
    tokens: int
    running: float
    empty: float
    unfilled: float | None = None
    seen: float = 0.0
    blind: float = 1.0
    unused: int = 0
    preempted: int = 0

    @property
    def tokens_a_second(self) -> float:
        """Of the decided jobs."""
        return self.tokens / self.seconds


def make_scheduler(window: int, shape: Shape, pool: Sequence[Task]) -> Scheduler:
    """The real scheduler on a new run; `pool` is the caller's to grow."""
    profile = SimulatedProfile(shape)
    return Scheduler(profile, seeds=SEEDS, run_seed=SEED, window=window, pool=pool, find_near_copies=None)


def scheduled(
    engines: Sequence[Replica], window: int, rate: float, *, shape: Shape = SHAPE, wanted: int = WANTED
) -> Outcome:
    """The loop of this project: all slots in flight, decisions in job order at `rate` jobs a second.

    Whatever is due is decided and settled together before the engine is served again.
    """
    pool: list[Task] = []
    scheduler = make_scheduler(window, shape, pool)
    capacity = sum(replica.slots for replica in engines)
    engine = SimulatedEngine(engines, capacity, shape)
    tokens = answered = 0
    seen: list[float] = []
    for finished in engine.generate(scheduler):
        answered += len(finished)
        for completion in finished:
            scheduler.receive(completion)
        sizes: list[int] = []
        for job, drafts in scheduler.due():
            work = work_of(job.number, shape)
            seen.append(len(job.generated) / max(len(pool), 1))
            share = accepted_share(len(pool))
            pool += [draft.task for draft, luck in zip(drafts, work.lucks, strict=True) if luck < share]
            sizes.append(len(pool))
            tokens += work.length
            if len(pool) >= wanted:
                break
        engine.now += len(sizes) / rate
        scheduler.settle(sizes)
        if len(pool) >= wanted:
            break
    engine_seconds = engine.now * len(engines)
    return Outcome(
        seconds=engine.now,
        jobs=scheduler.decided,
        tokens=tokens,
        running=sum(replica.running_seconds for replica in engines) / engine_seconds,
        empty=max(0.0, 1 - sum(replica.busy for replica in engines) / engine_seconds),
        unfilled=max(0.0, 1 - engine.slot_seconds() / (capacity * engine.now)),
        seen=fmean(seen),
        blind=seen.count(0.0) / len(seen),
        unused=answered + engine.open_requests - scheduler.decided,
        preempted=sum(replica.preempted for replica in engines),
    )


def published(engines: Sequence[Replica], batch: int, *, shape: Shape = SHAPE, wanted: int = WANTED) -> Outcome:
    """The published loop: `batch` prompts at once, wait for the slowest, compare each candidate with all before it."""
    now, pool, tokens, job = 0.0, 0, 0, 0
    while pool < wanted:
        round_ = [work_of(number, shape) for number in range(job, job + batch)]
        for replica in engines:
            replica.clock = now
        for number, work in enumerate(round_):
            sequence = InFlight(job + number, work.prompt, work.length)
            engines[number % len(engines)].waiting.append(sequence)
        for replica in engines:
            while replica.held:
                replica.step(most=shape.limit)
            now = max(now, replica.clock)
        for work in round_:
            now += len(work.lucks) * (SEED_TASKS + pool) * COMPARISON_SECONDS / PUBLISHED_PROCESSES
            share = accepted_share(pool)
            pool += sum(luck < share for luck in work.lucks)
            tokens += work.length
        job += batch
    return Outcome(
        seconds=now,
        jobs=job,
        tokens=tokens,
        running=sum(replica.running_seconds for replica in engines) / now / len(engines),
        empty=1 - sum(replica.busy for replica in engines) / now / len(engines),
        preempted=sum(replica.preempted for replica in engines),
    )


def fleet(model: Model, count: int, slots: int = IN_FLIGHT) -> list[Replica]:
    """So many idle engines on H100s."""
    return [Replica(rates(H100, model), slots) for _ in range(count)]


@cache
def ours(model: Model, count: int, slots: int, factor: int, rate: float) -> Outcome:
    """The loop of this project with a window of `factor` times all slots."""
    return scheduled(fleet(model, count, slots), factor * slots * count, rate)


def loops(model: Model, count: int) -> dict[str, Outcome]:
    """Both loops on so many engines."""
    outcomes = {
        "published, 5 at once, long completions": published(fleet(model, count), PUBLISHED_BATCH, shape=PUBLISHED_SHAPE)
    }
    for batch in (PUBLISHED_BATCH, IN_FLIGHT * count):
        outcomes[f"published, {batch:,} at once"] = published(fleet(model, count), batch)
    for rate in DECISION_RATES:
        outcomes[f"ours, {rate:,} decisions/s"] = ours(model, count, IN_FLIGHT, WINDOW_FACTOR, rate)
    return outcomes


def loops_table() -> str:
    """Both loops, both models, one and eight engines."""
    rows = []
    for model in (LLAMA_7B, LLAMA_8B):
        for count in (1, 8):
            for name, each in loops(model, count).items():
                rows.append(
                    (
                        f"{count} x {model.name}",
                        name,
                        f"{each.seconds / 3600:.2f}",
                        f"{each.tokens_a_second:,.0f}",
                        f"{each.jobs / each.seconds:.1f}",
                        f"{each.running:.1f}",
                        f"{each.empty:.1%}",
                        "" if each.unfilled is None else f"{each.unfilled:.2%}",
                    )
                )
    head = ("engines", "loop", "simulated hours", "tokens/s", "jobs/s", "running in each", "empty", "slots unfilled")
    return table(head, rows)


def slots_table() -> str:
    """What the cache of LLaMA-7B holds: one engine with fewer slots and more."""
    rows = []
    for slots in (64, 96, 128, 160, IN_FLIGHT):
        each = ours(LLAMA_7B, 1, slots, WINDOW_FACTOR, DECISION_RATES[-1])
        rows.append((slots, f"{each.tokens_a_second:,.0f}", f"{each.running:.0f}", f"{each.preempted:,}"))
    return table(("slots", "simulated tokens/s", "running", "gave way"), rows)


def windows_table() -> str:
    """What a wide window costs: prompts that know little of the pool."""
    rows = []
    for count in (1, 8):
        for factor in (1, 2, 4, WINDOW_FACTOR):
            each = ours(LLAMA_8B, count, IN_FLIGHT, factor, DECISION_RATES[-1])
            shares = (f"{each.unfilled:.2%}", f"{each.seen:.0%}", f"{each.blind:.0%}")
            window = f"{factor}C = {factor * IN_FLIGHT * count:,}"
            rows.append((count, window, f"{each.seconds / 60:.1f}", *shares))
    head = ("engines", "window", "simulated minutes", "slots unfilled", "of the pool seen", "jobs that saw none of it")
    return table(head, rows)


IDEAL = Rates(1.0, 0.0, 0.0, 0.0, 0.0, float("inf"))  # every step alike, any number at once
SPREAD_WANTED = 20_000
SPREADS = (
    ("as above: log-normal, sigma 0.4, cut at 1.8 times the mean", SHAPE, ""),
    ("the same, 5 % run to that limit", SHAPE._replace(stuck=0.05), ""),
    ("moderate: sigma 0.5, not cut", Shape(530, 0.5, 10**6), "34, 93, 99"),
    ("the same, 5 % run to a limit of 17 medians", Shape(530, 0.5, 9_000, 0.05), "12, 45, 87"),
)


def spreads_table() -> str:
    """Slots used, by window and spread of shape, with decisions that take no time."""
    rows = []
    for name, shape, planned in SPREADS:
        runs = [
            scheduled([Replica(IDEAL, IN_FLIGHT)], factor * IN_FLIGHT, float("inf"), shape=shape, wanted=SPREAD_WANTED)
            for factor in (1, 4, 8)
        ]
        rows.append((name, *(f"{1 - (each.unfilled or 0):.0%}" for each in runs), planned))
    return table(("completions", "W = C", "4C", "8C", "figures behind the default, %"), rows)


def assumptions() -> str:
    """What goes in, in words."""
    works = [work_of(job, SHAPE) for job in range(20_000)]
    mean = fmean(work.length for work in works)
    cut = fmean(work.length == SHAPE.limit for work in works)
    held = rates(H100, LLAMA_7B).cache
    return f"""\
- H100 SXM, bf16: {H100.bandwidth / 1e12} TB/s, {H100.flops / 1e12:.0f} TFLOP/s, 80 GB (NVIDIA's datasheet), of which \
vLLM has {MEMORY_SHARE:.0%}. A decoding step takes max(weights + cache read, arithmetic) / {EFFICIENCY} and \
{SEQUENCE_SECONDS * 1e6:.0f} us a sequence; prompts are computed at {PREFILL_SHARE:.0%} of the peak. LLaMA-7B: 6.74e9 \
parameters, 512 KiB of cache a token, which leaves room for {held:,.0f} tokens; Llama-3.1-8B: 8.03e9, 128 KiB.
- Assumed: prompts of {PROMPT_TOKENS[0]} to {PROMPT_TOKENS[1]} tokens; completions log-normal, {mean:.0f} tokens on \
average, {cut:.1%} cut at {SHAPE.limit:,}; {SHAPE.tasks} tasks asked for, {READ_SHARE:.0%} of them readable, of these \
{ACCEPTED_FIRST:.0%} accepted at first and {ACCEPTED_LAST:.0%} at the end.
- Published loop: a round of prompts, the slowest waited for, then every candidate compared with all before it at \
{COMPARISON_SECONDS * 1e6} us (our own timing, "Filter: alpaca"), spread over {PUBLISHED_PROCESSES} processes at no \
cost. Long completions: {PUBLISHED_SHAPE.tasks} tasks in up to {PUBLISHED_SHAPE.limit:,} tokens, as its prompt asks for.
- Ours: C = {IN_FLIGHT} slots an engine, window {WINDOW_FACTOR}C. Decisions are taken one after the other while the \
engines go on; slots that fall free meanwhile are filled after the last decision that is due.
- Left out: starting, prefix caching, seeded sampling, all networks."""


def body() -> str:
    """The section: every figure in it is simulated but those called published."""
    return f"""Nothing in this section was measured on a GPU: `simulate_gpu.py` is a discrete-event model, \
and only the column "published" is of real machines. Requests come from the real scheduler; completions and decisions \
are made up, from fixed seeds.

{assumptions()}

The model beside published measurements, on which its two free constants ({EFFICIENCY} and \
{SEQUENCE_SECONDS * 1e6:.0f} us) were chosen. All fits in the cache; the third row is of a vLLM whose host could not \
keep up with an H100 (its blog, 5 September 2024).

{checks_table()}

Simulated, {WANTED:,} accepted tasks. Tokens are those of decided jobs; "empty" is engine time with nothing running; \
"slots unfilled" is slot time from an answer's end to the next request.

{loops_table()}

Simulated, one engine, LLaMA-7B, window 8 x slots: more slots than the cache has room for. "Gave way" counts requests \
put back because the cache was full, and computed again.

{slots_table()}

Simulated, Llama-3.1-8B, {DECISION_RATES[-1]:,} decisions/s: "of the pool seen" is the share of the pool at a job's \
decision that its prompt could draw from, on average.

{windows_table()}

Simulated, slots used at C = {IN_FLIGHT}, with steps that all take the same time and decisions that take none:

{spreads_table()}
"""


if __name__ == "__main__":
    write_section("Simulated: 52,000 tasks on one and on eight H100s", body())
