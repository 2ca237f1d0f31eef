"""How close the loop comes to the engine's throughput, and how it compares with the published loop.

    python benchmarks/bench_generate.py engine [--rounds 2] [--requests 48] [--write]
    python benchmarks/bench_generate.py decisions [--pool 50000] [--jobs 3000] [--write]

`engine`, on the embedded model: our loop (requests from the scheduler, journal, rules, novelty, commits), then one raw
call of vLLM's `LLM.generate` with the same prompts and sampling parameters, then `LLM.generate` with five of them at a
time, waiting for the slowest, as the published program does. Both engines are loaded before the first round and wait
for their turn; rounds alternate, so that both run under the same conditions.

`decisions`: jobs per second through parsing, rules, novelty and the database, with a pool of a given size and no
engine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from raw_peer import IN_FLIGHT, MAX_TOKENS, settings
from results import machine, table, write_section

from corpus import InstructionModel
from selfinstruct_local.engines import Completion, FinishReason, Request
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.vllm_engine import VllmEngine, describe_vllm
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.metrics import RunMetrics
from selfinstruct_local.generate.run import RunLoop, make_acceptance, make_scheduler
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.models import ModelFolder, prepare_embedded
from selfinstruct_local.offline import go_offline
from selfinstruct_local.runs.store import InheritedTask, RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task

LOCK_STEP = 5  # prompts at a time in the published program
LOCK_STEP_ROUNDS = 3
MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}


def open_session(store: RunStore, chosen: GenerateSettings, capacity: int) -> RunLoop:
    """Return a session with all that `generate` creates for its loop, except for the engine."""
    seeds = open_run(store, chosen, MODEL, [seed_file()])
    acceptance = make_acceptance(store, chosen, seeds, store.pool())
    scheduler = make_scheduler(store, chosen, seeds, acceptance)
    number = store.begin_session({}, {})
    display = RunDisplay(stderr_console(), store.totals(), chosen.num)
    return RunLoop(number, store, chosen, scheduler, acceptance, RunMetrics(capacity), display, Interrupt())


class OurLoop:
    """The loop of `generate` on an engine that stays loaded, in rounds of a given number of requests."""

    def __init__(self, folder: Path, model: ModelFolder) -> None:
        self.settings = settings()
        make_engine = partial(
            VllmEngine, model, self.settings.engine, max_model_len=self.settings.max_model_len, log_file=folder / "log"
        )
        self.engine = EngineProcess(make_engine, self.settings.engine, describe_vllm(model), folder / "log")
        self.store = RunStore(folder / "run")
        self.session = open_session(self.store, self.settings, self.engine.capacity)
        self.engine.wait_until_ready()

    def round(self, count: int) -> tuple[list[Request], int, float]:
        """Return the requests of a round of `count`, the tokens generated, and the seconds taken."""
        asked: list[Request] = []

        def source() -> Iterator[Request | None]:
            while len(asked) < count:
                request = next(self.session.scheduler)
                if request is not None:
                    asked.append(request)
                yield request

        tokens = 0
        started = time.perf_counter()
        for finished in self.engine.generate(source()):
            self.session.receive(finished)
            self.session.decide()
            tokens += sum(each.completion_tokens for each in finished)
        return asked, tokens, time.perf_counter() - started

    def close(self) -> None:
        """Stop the engine and close the run."""
        self.engine.close()
        self.store.close()


class RawPeer:
    """A process with vLLM's `LLM` that takes requests as lines of JSON."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("raw_peer.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._ask({"requests": [], "batch": 1})  # the model is loaded once this returns

    def round(self, requests: Sequence[Request], batch: int) -> tuple[int, float]:
        """Return tokens and seconds for all requests, with `batch` requests per call."""
        answer = self._ask({"requests": [asdict(request) for request in requests], "batch": batch})
        return answer["tokens"], answer["seconds"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:
            sys.exit("the peer has no pipes")
        to.write(json.dumps(question) + "\n")
        to.flush()
        return dict(json.loads(back.readline()))

    def close(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()


def bench_engine(rounds: int, requests: int, *, write: bool) -> None:
    """Measure `rounds` rounds of `requests` requests on both engines, and print the section or write it."""
    model = prepare_embedded()
    paces: dict[str, list[float]] = {"ours": [], "raw": [], "lock-step": []}
    equal = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours, peer = OurLoop(folder, model), RawPeer(folder / "peer.log")
        try:
            warm, _, _ = ours.round(LOCK_STEP)
            peer.round(warm, len(warm))
            for _ in range(rounds):
                asked, tokens, spent = ours.round(requests)
                paces["ours"].append(tokens / spent)
                raw_tokens, raw_spent = peer.round(asked, len(asked))
                paces["raw"].append(raw_tokens / raw_spent)
                equal.append((tokens, raw_tokens))
                few = asked[: LOCK_STEP * LOCK_STEP_ROUNDS]
                step_tokens, step_spent = peer.round(few, LOCK_STEP)
                paces["lock-step"].append(step_tokens / step_spent)
                print({name: [round(pace, 1) for pace in each] for name, each in paces.items()}, equal, flush=True)
            measured = ours.session.meter.measured()
        finally:
            ours.close()
            peer.close()
    best = statistics.median(paces["ours"])
    rows = [
        (
            what,
            f"{statistics.median(each):.1f}",
            f"{best / statistics.median(each):.2f}",
            ", ".join(f"{pace:.1f}" for pace in each),
        )
        for what, each in (
            ("our loop", paces["ours"]),
            ("one raw `LLM.generate` on the same prompts", paces["raw"]),
            (f"`LLM.generate`, {LOCK_STEP} at a time ({LOCK_STEP_ROUNDS} times)", paces["lock-step"]),
        )
    ]
    body = (
        f"{machine()}\n\nThe embedded model in float32, {requests} requests of profile `alpaca` per round, "
        f"{IN_FLIGHT} in flight, at most {MAX_TOKENS} tokens; median of {rounds} rounds after a warm-up. Tokens of our "
        f"loop and of the raw call, by round: {', '.join(f'{one} and {other}' for one, other in equal)}.\n\n"
        + table(("what", "tokens/s", "ours over it", "rounds"), rows)
        + f"\n\nTime of our loop, in seconds: {measured['seconds']}."
    )
    _publish("Generation: our loop compared with the raw engine", body, write=write)


class InstantEngine:
    """An engine for `decisions`: its completions hold whole tasks of generated instructions, prepared beforehand."""

    def __init__(self, jobs: int, tasks: int) -> None:
        model = InstructionModel(seed=1)
        self._texts = [
            "\n\n".join(
                f"### Task {number}\nInstruction: {model.instruction()}\nInput: none\nOutput: {model.instruction()}"
                for number in range(4, 4 + tasks)
            ).removeprefix("### Task 4\nInstruction:")
            for _ in range(jobs)
        ]

    def answer(self, request: Request) -> Completion:
        """Return the prepared completion of the job."""
        text = self._texts[request.key.job]
        return Completion(request.key, text, FinishReason.STOP, 400, len(text) // 5)


def bench_decisions(pool: int, jobs: int, *, write: bool) -> None:
    """Measure decisions of `jobs` jobs with a pool of `pool` tasks, and print the section or write it."""
    chosen = settings()
    tasks = chosen.tasks_per_prompt
    engine = InstantEngine(jobs + 3 * IN_FLIGHT, tasks)  # the last batches may exceed the count
    model = InstructionModel(seed=2)
    rows = []
    for batch in (1, 8, 32):
        with tempfile.TemporaryDirectory(dir=".") as temporary, RunStore(Path(temporary) / "run") as store:
            store.inherit(InheritedTask(Task.single(model.instruction(), "", "x"), {}) for _ in range(pool))
            session = open_session(store, chosen, IN_FLIGHT)
            paces = []
            for _ in range(3):
                decided = session.scheduler.decided
                started = time.perf_counter()
                while session.scheduler.decided < decided + jobs // 3:
                    requests = list(islice(session.scheduler, batch))
                    session.receive([engine.answer(request) for request in requests if request])
                    session.decide()
                paces.append((session.scheduler.decided - decided) / (time.perf_counter() - started))
            parts = session.meter.seconds
            scored = len(store.unscored())
            started = time.perf_counter()
            session.acceptance.score(store, lambda: True)
            rows.append(
                (
                    batch,
                    f"{statistics.median(paces):.0f}",
                    f"{min(paces):.0f} to {max(paces):.0f}",
                    f"{1e3 * parts['decide'] / jobs:.2f} ms",
                    f"{1e3 * parts['store'] / jobs:.2f} ms",
                    f"{1e3 * (time.perf_counter() - started) / scored:.2f} ms",
                )
            )
    body = (
        f"{machine()}\n\nA pool of {pool} tasks, {tasks} new ones per job; every completion and every job is durable "
        f"(synchronous=FULL) before the next request. Median of three times {jobs // 3} jobs. The nearest neighbour of "
        "an accepted task is searched for when the engine is idle, by a scan of the pool: the last column.\n\n"
        + table(
            (
                "completions at a time",
                "jobs/s",
                "range",
                "parse and decide, per job",
                "database, per job",
                "neighbour, per task",
            ),
            rows,
        )
    )
    _publish("Generation: jobs decided per second", body, write=write)


def _publish(title: str, body: str, *, write: bool) -> None:
    if write:
        write_section(title, body)
    else:
        print(f"## {title}\n\n{body}")


def main() -> None:
    """Parse the options and run `engine` or `decisions`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("engine", "decisions"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--pool", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    go_offline()
    if options.part == "engine":
        bench_engine(options.rounds, options.requests, write=options.write)
    else:
        bench_decisions(options.pool, options.jobs, write=options.write)


if __name__ == "__main__":
    main()
