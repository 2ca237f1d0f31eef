"""How long it takes to open a run of a million candidates, and to filter it again.

    python benchmarks/bench_ledger.py [--candidates 1000000] [--folder FOLDER] [--write]

The run is made of generated instructions (`corpus.py`) with outputs of two sentences, four candidates per job, one
completion per job, decided by the exact filter. Each figure is for its own process:

- opening: `RunStore`, the pool, the novelty index of all accepted tasks, the scheduler, and its first request;
- filtering again: `selfinstruct filter --run` as a whole, and the core's share of it: the rules and the novelty filter
  on the same tasks in memory, measured in the same session.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from results import machine, pin_threads, seconds, table, write_section

pin_threads(1)

from corpus import InstructionModel  # noqa: E402 - after pinning the threads
from selfinstruct_local.engines import Completion, FinishReason, RequestKey  # noqa: E402
from selfinstruct_local.filters.decide import Decider  # noqa: E402
from selfinstruct_local.filters.rulesets import rule_set  # noqa: E402
from selfinstruct_local.generate.create import open_run  # noqa: E402
from selfinstruct_local.generate.run import make_acceptance, make_scheduler  # noqa: E402
from selfinstruct_local.generate.settings import GenerateSettings  # noqa: E402
from selfinstruct_local.kernels import NoveltyIndex  # noqa: E402
from selfinstruct_local.runs.store import Candidate, DecidedJob, RunStore, candidate_id  # noqa: E402
from selfinstruct_local.seeds import seed_file  # noqa: E402
from selfinstruct_local.task import Task  # noqa: E402

MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}
CANDIDATES_A_JOB = 4
JOBS_A_COMMIT = 2048
# Jobs that have a completion but no decision when the run stops: a full window.
WINDOW = 2048


def settings() -> GenerateSettings:
    """Return the settings of the run."""
    return GenerateSettings(window=WINDOW)


def make_ledger(folder: Path, candidates: int) -> None:
    """Create the run, with a full window of completions that are not decided."""
    model = InstructionModel()
    jobs = candidates // CANDIDATES_A_JOB
    with RunStore(folder) as store:
        seeds = open_run(store, settings(), MODEL, [seed_file()])
        index = NoveltyIndex(threshold=0.7)
        index.add([seed.instruction for seed in seeds])
        decider = Decider(rule_set("alpaca"), index)
        session = store.begin_session({}, {"engine": "none"})
        numbers = iter(range(jobs + WINDOW))
        while batch := list(islice(numbers, JOBS_A_COMMIT)):
            made = {job: [_task(model, job, position) for position in range(CANDIDATES_A_JOB)] for job in batch}
            store.add_completions(session, (_completion(job, tasks) for job, tasks in made.items()))
            if batch[0] < jobs:
                store.commit_jobs(_decide(decider, made, seeds[0].id))


def _task(model: InstructionModel, job: int, position: int) -> Task:
    task = Task.single(model.instruction(), "", f"{model.instruction()} {model.instruction()}")
    return task._replace(id=candidate_id(job, position))


def _completion(job: int, tasks: list[Task]) -> Completion:
    text = "\n\n".join(f"### Task\nInstruction: {task.instruction}\nOutput: {task.output}" for task in tasks)
    return Completion(RequestKey(job, "tasks", 0), text, FinishReason.STOP, 400, len(text) // 5, 256)


def _decide(decider: Decider, made: dict[int, list[Task]], shown: str) -> Iterator[DecidedJob]:
    tasks = [task for group in made.values() for task in group]
    verdicts = iter(decider.decide(tasks))
    for job, group in made.items():
        yield DecidedJob(job, (shown,), [Candidate(task, next(verdicts)) for task in group])


def open_again(folder: Path) -> dict[str, float]:
    """Open the run as `generate` does, up to its first request; return seconds, memory in MiB and counts."""
    started = time.perf_counter()
    with RunStore(folder) as store:
        chosen = settings()
        seeds = open_run(store, chosen, MODEL, [seed_file()])
        acceptance = make_acceptance(store, chosen, seeds, store.pool())
        scheduler = make_scheduler(store, chosen, seeds, acceptance)
        next(scheduler)
        totals = store.totals()
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": time.perf_counter() - started, "mib": mib, "pool": len(acceptance.pool), "jobs": totals.jobs}


def core_alone(folder: Path) -> dict[str, float]:
    """Return the seconds of the rules and the novelty filter on all candidates in memory, and how many are kept."""
    with RunStore(folder, read_only=True) as store:
        seeds = [seed.instruction for seed in store.seeds()]
        tasks = [each.task for job in store.ledger() for each in job.decided.candidates]
    index = NoveltyIndex(threshold=0.7)
    index.add(seeds)
    decider = Decider(rule_set("alpaca"), index)
    started = time.perf_counter()
    kept = sum(
        verdict.keep for start in range(0, len(tasks), 2048) for verdict in decider.decide(tasks[start : start + 2048])
    )
    return {"seconds": time.perf_counter() - started, "kept": kept}


def measured(*arguments: object) -> dict[str, float]:
    """Run a Python process; return its seconds and the JSON object that it prints last."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    whole = time.perf_counter() - started
    return {"whole": whole, **json.loads(done.stdout.splitlines()[-1])}


def report(folder: Path, candidates: int, *, write: bool) -> None:
    """Measure the run in `folder`, and print the section or write it to RESULTS.md."""
    this = Path(__file__)
    size = sum(file.stat().st_size for file in (folder / "run").iterdir()) / 2**30
    opening = min((measured(this, "--open", folder) for _ in range(3)), key=lambda each: each["seconds"])
    core = min((measured(this, "--core", folder) for _ in range(2)), key=lambda each: each["seconds"])
    command = ("-m", "selfinstruct_local", "filter", "--run", folder / "run", "--out", folder / "out.jsonl", "--json")
    again = min((measured(*command) for _ in range(2)), key=lambda each: each["whole"])
    if again["kept"] != core["kept"]:
        sys.exit(f"filter --run keeps {again['kept']:.0f}, the core {core['kept']:.0f}")
    rows = [
        (f"open and resume, to the first request (peak memory {opening['mib']:.0f} MiB)", seconds(opening["seconds"])),
        ("filter --run, whole process", seconds(again["whole"])),
        ("the core's share: rules and novelty, tasks in memory", seconds(core["seconds"])),
        ("filter --run minus the core", seconds(again["whole"] - core["seconds"])),
    ]
    body = (
        f"{machine()}\n\n{candidates} candidates of {opening['jobs']:.0f} jobs, {opening['pool']:.0f} accepted, "
        f"{WINDOW} completions undecided; {size:.1f} GiB database. One thread. Minimum of three (opening) and two.\n\n"
        + table(("what", "time"), rows)
    )
    if write:
        write_section("A run of a million candidates", body)
    else:
        print(body)


def main() -> None:
    """Parse the options; create the run if it does not exist, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="folder of the run, new or from an earlier call")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_again(options.open / "run")))
    elif options.core:
        print(json.dumps(core_alone(options.core / "run")))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder or Path(temporary)
            if not (folder / "run").exists():
                make_ledger(folder / "run", options.candidates)
            report(folder, options.candidates, write=options.write)


if __name__ == "__main__":
    main()
