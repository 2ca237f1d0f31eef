"""Simulated, not measured: 52,000 tasks from one and from eight H100s, the published loop compared with this one.

    python benchmarks/simulate_gpu.py

A discrete-event model of continuous batching. The real `Scheduler` draws the requests, receives the completions and
orders the decisions, in the loop of `generate/run.py`. The model covers the engine (datasheets; a decoding step reads
the weights and the cache once), the lengths of completions and the share of accepted tasks (assumed, below). All random
streams are seeded, so the figures are the same every time. The section first compares the model with published
measurements.
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
DECISION_RATES = (500, 2_000)  # jobs per second: parsing, rules, novelty and commit, one job after the other
PUBLISHED_BATCH, PUBLISHED_PROCESSES = 5, 16  # the published program's defaults
# One comparison by google's rouge_score, without tokenisation: our timing, section "Filter: alpaca" of RESULTS.md. The
# published program restarts its processes for every candidate; that is not modelled, in its favour.
COMPARISON_SECONDS = 20.2e-6

# Prompts of profile `alpaca` over the seeds have 1,694 characters on average, nine in ten 1,320 to 2,090; converted at
# four characters per token, plus a little for the tasks of a pool. Prefix caching of the engine is not modelled.
PROMPT_TOKENS = (330, 570)
# Assumed: the share of the requested tasks that can be parsed, and the share of those that is accepted into an empty
# pool and into one of 52,000, which already has the obvious tasks. Both loops do the same jobs, so both are affected
# equally.
READ_SHARE = 0.7
ACCEPTED_FIRST, ACCEPTED_LAST = 0.8, 0.55


class Shape(NamedTuple):
    """The shape of completions: log-normal in tokens, truncated at `limit`, with `tasks` tasks requested.

    A share of `stuck` of them runs to the limit, independently of the distribution.
    """

    median: float
    sigma: float
    limit: int
    stuck: float = 0.0
    tasks: int = 5


# Assumed: five tasks of about 110 tokens including headings (the published tasks have 10 words of instruction and some
# 60 of input and output), one completion in seventeen truncated at the limit.
SHAPE = Shape(530, 0.4, 1_000)
# The published prompt asks for 20 tasks. A context of 2,048 has room for about 1,550 tokens, so for 14 tasks.
PUBLISHED_SHAPE = Shape(2_120, 0.4, 1_550, tasks=14)


class Work(NamedTuple):
    """The prompt and completion lengths of a job, and a random number for each task that can be parsed."""

    prompt: int
    length: int
    lucks: tuple[float, ...]


@cache
def work_of(job: int, shape: Shape) -> Work:
    """Return the work of a job, which is the same for every loop and every engine."""
    stream = random.Random(stream_seed(SEED, job, "work", 0))  # noqa: S311 - a simulation
    length = min(max(round(stream.lognormvariate(0, shape.sigma) * shape.median), 1), shape.limit)
    if stream.random() < shape.stuck:
        length = shape.limit
    readable = sum(stream.random() < READ_SHARE for _ in range(shape.tasks))
    return Work(stream.randint(*PROMPT_TOKENS), length, tuple(stream.random() for _ in range(readable)))


def accepted_share(pool: int) -> float:
    """Return the share of parsed tasks that a pool of this size accepts."""
    return ACCEPTED_FIRST + (ACCEPTED_LAST - ACCEPTED_FIRST) * pool / WANTED


class SimulatedEngine:
    """`Engine.generate` over replicas and a clock: `now` is the time of the loop, which the loop may advance."""

    def __init__(self, replicas: Sequence[Replica], capacity: int, shape: Shape) -> None:
        self.now = 0.0
        self._slot_seconds = 0.0  # of finished requests
        self._replicas = replicas
        self._capacity = capacity
        self._shape = shape
        self._in_flight = 0
        self._submitted: dict[int, float] = {}
        self._agenda: list[tuple[float, int]] = []  # (clock, replica) of those with work
        self._ended: list[tuple[float, int]] = []  # (time, job) not yet yielded

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Yield completions as vLLM's engine process does: it runs while the loop decides, then gets new requests."""
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
        """Number of requests that are not finished."""
        return len(self._submitted)

    def slot_seconds(self) -> float:
        """Return the total time for which slots have held a request, up to now."""
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
    """One request per job, like profile `alpaca`; its parsed tasks are only names."""

    name = "simulated"
    demonstrations = 3
    shows_whole_tasks = True
    prompts = ()

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def steps(self, job: Job) -> Steps:
        """Draw few-shot examples as a real job does, and return as many parsed tasks as the job's work has."""
        job.demonstrate(self.demonstrations, machine_made=1, stage=STAGE)
        (completion,) = yield [job.request(STAGE, 0, "", SAMPLING)]
        readable = len(work_of(completion.key.job, self._shape).lucks)
        return [ParsedTask(Task(f"Task {job.number}.{place}")) for place in range(readable)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a simulated run.

    Attributes:
        seconds: time from the first request to the last decision.
        jobs: number of decided jobs; all figures except for `unused` are about these.
        tokens: tokens of their completions.
        running: requests running per engine, averaged over time.
        empty: share of the engines' time with nothing running.
        unfilled: share of the slots' time between the end of a completion and the next request, or without a request;
            None in the published loop, which does not refill slots.
        seen: share of the pool at the decision of a job that its prompt could draw from, averaged over jobs.
        blind: share of the jobs whose prompt could not draw from any accepted task.
        unused: requests that were submitted and not decided at the end.
        preempted: number of preemptions because of a full cache.
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
        """Completion tokens of the decided jobs per second."""
        return self.tokens / self.seconds


def make_scheduler(window: int, shape: Shape, pool: Sequence[Task]) -> Scheduler:
    """Return the real scheduler on a new run; the caller adds tasks to `pool`."""
    profile = SimulatedProfile(shape)
    return Scheduler(profile, seeds=SEEDS, run_seed=SEED, window=window, pool=pool, find_near_copies=None)


def scheduled(
    engines: Sequence[Replica], window: int, rate: float, *, shape: Shape = SHAPE, wanted: int = WANTED
) -> Outcome:
    """Return the outcome of this project's loop: all slots in flight, decisions in job order at `rate` jobs per second.

    All jobs that are due are decided and settled together before the engine gets new requests.
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
    """Return the outcome of the published loop.

    It sends `batch` prompts at once, waits for the slowest, and compares each candidate with all before it.
    """
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
    """Return `count` idle engines on H100s."""
    return [Replica(rates(H100, model), slots) for _ in range(count)]


@cache
def ours(model: Model, count: int, slots: int, factor: int, rate: float) -> Outcome:
    """Return the outcome of this project's loop with a window of `factor` times all slots."""
    return scheduled(fleet(model, count, slots), factor * slots * count, rate)


def loops(model: Model, count: int) -> dict[str, Outcome]:
    """Return the outcomes of both loops on `count` engines, by name."""
    outcomes = {
        "published, 5 at once, long completions": published(fleet(model, count), PUBLISHED_BATCH, shape=PUBLISHED_SHAPE)
    }
    for batch in (PUBLISHED_BATCH, IN_FLIGHT * count):
        outcomes[f"published, {batch:,} at once"] = published(fleet(model, count), batch)
    for rate in DECISION_RATES:
        outcomes[f"ours, {rate:,} decisions/s"] = ours(model, count, IN_FLIGHT, WINDOW_FACTOR, rate)
    return outcomes


def loops_table() -> str:
    """Return the table of both loops, for both models, on one and eight engines."""
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
    head = ("engines", "loop", "simulated hours", "tokens/s", "jobs/s", "running per engine", "empty", "slots unfilled")
    return table(head, rows)


def slots_table() -> str:
    """Return the table of one engine with fewer and with more slots than the cache of LLaMA-7B can hold."""
    rows = []
    for slots in (64, 96, 128, 160, IN_FLIGHT):
        each = ours(LLAMA_7B, 1, slots, WINDOW_FACTOR, DECISION_RATES[-1])
        rows.append((slots, f"{each.tokens_a_second:,.0f}", f"{each.running:.0f}", f"{each.preempted:,}"))
    return table(("slots", "simulated tokens/s", "running", "preempted"), rows)


def windows_table() -> str:
    """Return the table of window sizes: in a wide window, prompts can draw from little of the pool."""
    rows = []
    for count in (1, 8):
        for factor in (1, 2, 4, WINDOW_FACTOR):
            each = ours(LLAMA_8B, count, IN_FLIGHT, factor, DECISION_RATES[-1])
            shares = (f"{each.unfilled:.2%}", f"{each.seen:.0%}", f"{each.blind:.0%}")
            window = f"{factor}C = {factor * IN_FLIGHT * count:,}"
            rows.append((count, window, f"{each.seconds / 60:.1f}", *shares))
    head = ("engines", "window", "simulated minutes", "slots unfilled", "pool seen", "jobs that saw none of it")
    return table(head, rows)


IDEAL = Rates(1.0, 0.0, 0.0, 0.0, 0.0, float("inf"))  # all steps take the same time, with any number of sequences
SPREAD_WANTED = 20_000
SPREADS = (
    ("as above: log-normal, sigma 0.4, cut at 1.8 times the mean", SHAPE, ""),
    ("the same, 5 % run to that limit", SHAPE._replace(stuck=0.05), ""),
    ("moderate: sigma 0.5, not cut", Shape(530, 0.5, 10**6), "34, 93, 99"),
    ("the same, 5 % run to a limit of 17 medians", Shape(530, 0.5, 9_000, 0.05), "12, 45, 87"),
)


def spreads_table() -> str:
    """Return the table of slots used, by window and shape of completions, with decisions that take no time."""
    rows = []
    for name, shape, planned in SPREADS:
        runs = [
            scheduled([Replica(IDEAL, IN_FLIGHT)], factor * IN_FLIGHT, float("inf"), shape=shape, wanted=SPREAD_WANTED)
            for factor in (1, 4, 8)
        ]
        rows.append((name, *(f"{1 - (each.unfilled or 0):.0%}" for each in runs), planned))
    return table(("completions", "W = C", "4C", "8C", "figures behind the default, %"), rows)


def assumptions() -> str:
    """Return the assumptions as a Markdown list."""
    works = [work_of(job, SHAPE) for job in range(20_000)]
    mean = fmean(work.length for work in works)
    cut = fmean(work.length == SHAPE.limit for work in works)
    held = rates(H100, LLAMA_7B).cache
    return f"""\
- H100 SXM, bf16: {H100.bandwidth / 1e12} TB/s, {H100.flops / 1e12:.0f} TFLOP/s, 80 GB (NVIDIA's datasheet), of which \
vLLM has {MEMORY_SHARE:.0%}. A decoding step takes max(weights + cache read, arithmetic) / {EFFICIENCY} and \
{SEQUENCE_SECONDS * 1e6:.0f} us per sequence; prompts are computed at {PREFILL_SHARE:.0%} of the peak. LLaMA-7B: \
6.74e9 parameters, 512 KiB of cache per token, which leaves room for {held:,.0f} tokens; Llama-3.1-8B: 8.03e9, \
128 KiB.
- Assumed: prompts of {PROMPT_TOKENS[0]} to {PROMPT_TOKENS[1]} tokens; completions log-normal, {mean:.0f} tokens on \
average, {cut:.1%} truncated at {SHAPE.limit:,}; {SHAPE.tasks} tasks requested, {READ_SHARE:.0%} of them parsed; of \
the parsed tasks {ACCEPTED_FIRST:.0%} are accepted at first and {ACCEPTED_LAST:.0%} at the end.
- Published loop: it sends a round of prompts, waits for the slowest, then compares every candidate with all before \
it at {COMPARISON_SECONDS * 1e6} us (our own timing, "Filter: alpaca"), divided over {PUBLISHED_PROCESSES} processes \
at no cost. Long completions: {PUBLISHED_SHAPE.tasks} tasks in up to {PUBLISHED_SHAPE.limit:,} tokens, as its prompt \
asks for.
- Ours: C = {IN_FLIGHT} slots per engine, window {WINDOW_FACTOR}C. Decisions are made one after the other while the \
engines run; slots that become free meanwhile are filled after the last decision that is due.
- Not modelled: start-up, prefix caching, seeded sampling, all networks."""


def body() -> str:
    """Return the section; every figure in it is simulated, except for those called published."""
    return f"""Nothing in this section was measured on GPUs: `simulate_gpu.py` is a discrete-event model, \
and only the column "published" is from real machines. Requests come from the real scheduler; completions and \
decisions are simulated, from fixed seeds.

{assumptions()}

The model compared with published measurements, to which its two free constants ({EFFICIENCY} and \
{SEQUENCE_SECONDS * 1e6:.0f} us) were fitted. Everything fits into the cache; the third row is from a vLLM version \
whose host could not keep up with an H100 (its blog, 5 September 2024).

{checks_table()}

Simulated, {WANTED:,} accepted tasks. Tokens are those of decided jobs; "empty" is engine time with nothing running; \
"slots unfilled" is slot time from the end of a completion to the next request.

{loops_table()}

Simulated, one engine, LLaMA-7B, window 8 x slots: more slots than the cache has room for. "Preempted" counts requests \
that were put back because the cache was full, and computed again.

{slots_table()}

Simulated, Llama-3.1-8B, {DECISION_RATES[-1]:,} decisions/s. The window is the lag of the prompt pool: "pool seen" is \
the share of the pool at a job's decision that its prompt could draw from, on average.

{windows_table()}

Simulated, slots used at C = {IN_FLIGHT}, with steps that all take the same time and decisions that take no time:

{spreads_table()}
"""


if __name__ == "__main__":
    write_section("Simulated: 52,000 tasks on one and on eight H100s", body())
