"""The filter on Ray: equality with the filter on one machine, time by workers and by size, and data sent.

    python benchmarks/bench_cluster.py [--sizes N ...] [--folder DIR] [--write]

Instructions are generated (`corpus.py`). Every fifth is a copy of another one with up to three words changed, so that
there are chains of near copies to decide. Each figure is for `selfinstruct filter` in its own process, including the
start of Ray. Run nothing else meanwhile: two workers use two processors.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results import machine, pin_threads, seconds, table, write_section

pin_threads(1)

import numpy as np  # noqa: E402 - after pinning the threads
import orjson  # noqa: E402
import psutil  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from corpus import instructions  # noqa: E402
from selfinstruct_local.kernels import encode  # noqa: E402
from selfinstruct_local.kernels.pairs import Texts, near_pairs, route, take  # noqa: E402

SIZES = (100_000, 300_000, 1_000_000, 2_000_000, 5_000_000)
COMPARED = 1_000_000  # compared with one machine and with one worker
HASHED = 100_000  # MinHash is slower
COPIED = 0.2
CHANGES = 3
THRESHOLD = 0.7
SAMPLE_SECONDS = 0.2
HEAD = (
    "records",
    "workers",
    "whole process",
    "read + join + write, s",
    "kept",
    "near pairs",
    "texts sent for each",
    "MB sent",
    "largest group over mean",
    "texts of the hottest token",
    "its join",
    "tokens",
    "MiB of the largest process",
)
OUTPUT = "Done as it was asked, with all its parts."


class Outcome(NamedTuple):
    """The result of a pass: seconds of the process, its summary, and peak memory of the largest process in MiB."""

    spent: float
    summary: dict[str, Any]
    peak: float


def make_records(path: Path, count: int, seed: int = 1) -> None:
    """Write `count` instructions to `path`, in an order in which copies may come before their originals."""
    stream = random.Random(seed)  # noqa: S311 - a corpus, not a secret
    texts = list(instructions(round(count * (1 - COPIED))))
    words = [word for text in texts[:1000] for word in text.split()]
    for _ in range(count - len(texts)):
        copy = stream.choice(texts).split()
        for _ in range(stream.randint(0, CHANGES)):
            place = stream.randrange(len(copy))
            copy[place : place + stream.randint(0, 1)] = [stream.choice(words)]
        texts.append(" ".join(copy))
    stream.shuffle(texts)
    with path.open("wb") as file:
        for text in texts:
            record = {"instruction": text, "input": "", "output": OUTPUT}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def head(source: Path, target: Path, count: int) -> None:
    """Copy the first `count` lines of `source` to `target`."""
    with source.open("rb") as lines, target.open("wb") as file:
        file.writelines(next(lines) for _ in range(count))


def run(*arguments: object) -> tuple[float, float]:
    """Run `selfinstruct filter`; return its seconds, and the peak MiB of the largest of its processes."""
    command = [sys.executable, "-m", "selfinstruct_local", "filter", *map(str, arguments)]
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # a process may end while it is inspected
            tree = [process, *process.children(recursive=True)]
            peak = max(peak, *(each.memory_info().rss for each in tree))
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - started, peak / 2**20


def on_ray(records: Path, out: Path, workers: int, *flags: str) -> Outcome:
    """Return the outcome of a pass on Ray with `workers` workers."""
    spent, peak = run(records, "--engine", "ray", "--workers", workers, "--out", out, *flags)
    return Outcome(spent, json.loads((out / "summary.json").read_bytes()), peak)


def decisions(kept: Iterator[dict[str, Any]], rejected: Iterator[dict[str, Any]]) -> tuple[list[str], list[Any]]:
    """Return the kept instructions in order, and the rejects with all their fields."""
    return [record["instruction"] for record in kept], list(rejected)


def of_folder(out: Path) -> tuple[list[str], list[Any]]:
    """Return the decisions of the filter on Ray, read from its output folder."""
    tables = (pq.read_table(path) for path in sorted((out / "kept").iterdir()))
    kept = (record for each in tables for record in each.to_pylist())
    return decisions(kept, _lines(sorted((out / "rejected").iterdir())))


def _lines(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with path.open("rb") as lines:
            yield from map(orjson.loads, lines)


class Hottest(NamedTuple):
    """The token by which most texts are compared: its share of the texts, seconds to join them; and vocabulary size."""

    share: float
    spent: float
    vocabulary: int


def hottest(records: Path) -> Hottest:
    """Join the texts of the hottest token on one thread, and return its figures: no group can be smaller."""
    encoded = encode([record["instruction"] for record in _lines([records])])
    counts = np.bincount(encoded.ids, minlength=len(encoded.vocabulary))
    rank = np.empty(counts.size, np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(counts.size, dtype=np.int32)
    texts = Texts(rank[encoded.ids], encoded.offsets)
    rows, tokens = route(texts, THRESHOLD, np.arange(counts.size, dtype=np.int32))
    token = int(np.bincount(tokens).argmax())
    mine = take(texts, rows[tokens == token])
    owned = np.arange(counts.size) == token
    near_pairs(take(mine, np.arange(8)), THRESHOLD, owned)  # compiled, not timed
    started = time.perf_counter()
    near_pairs(mine, THRESHOLD, owned)
    return Hottest((mine.offsets.size - 1) / len(encoded), time.perf_counter() - started, counts.size)


def row(size: int, workers: int, outcome: Outcome, hot: Hottest) -> tuple[object, ...]:
    """Print and return a row of the table."""
    summary = outcome.summary
    stages = " + ".join(f"{summary['seconds'][stage]:.0f}" for stage in ("read", "join", "write"))
    cells = (
        f"{size:,}",
        workers,
        seconds(outcome.spent),
        stages,
        f"{summary['kept']:,}",
        f"{summary['pairs']:,}",
        f"{summary['copies'] / size:.1f}",
        f"{summary['sent_bytes'] / 1e6:,.0f}",
        f"{summary['largest_group'] * summary['groups'] / summary['copies']:.2f}",
        f"{hot.share:.2%}",
        seconds(hot.spent),
        f"{hot.vocabulary:,}",
        f"{outcome.peak:,.0f}",
    )
    print(*cells, flush=True)
    return cells


def compare(part: Path, passes: list[Path], folder: Path) -> str:
    """Return a sentence on whether passes on Ray and one machine decide the same, and on the time of one machine."""
    local, _ = run(part, "--out", folder / "kept.jsonl", "--rejects", folder / "rejects.jsonl")
    wanted = decisions(_lines([folder / "kept.jsonl"]), _lines([folder / "rejects.jsonl"]))
    equal = all(of_folder(out) == wanted for out in passes)
    return (
        f"On one machine, one thread: {seconds(local)}. Kept records, their order, rejects, reasons, neighbours and "
        f"scores of both passes on Ray {'are the same' if equal else 'DIFFER'}."
    )


def compare_minhash(part: Path, folder: Path) -> str:
    """Return a sentence that compares the MinHash prefilter with the exact one."""
    exact, hashed = on_ray(part, folder / "exact", 2), on_ray(part, folder / "hashed", 2, "--prefilter", "minhash")
    one, other = set(of_folder(folder / "exact")[0]), set(of_folder(folder / "hashed")[0])
    return (
        f"`--prefilter minhash`, 2 workers: {seconds(hashed.spent)} (exact {seconds(exact.spent)}); "
        f"{hashed.summary['pairs'] / exact.summary['pairs']:.4%} of the near pairs found, {len(other - one)} texts "
        f"kept that exact rejects, {len(one - other)} rejected that exact keeps."
    )


def report(options: argparse.Namespace, folder: Path) -> None:
    """Measure all sizes, and print the section or write it to RESULTS.md."""
    records, part = folder / "records.jsonl", folder / "part.jsonl"
    make_records(records, max(options.sizes))
    rows, compared, same = [], min(COMPARED, max(options.sizes)), ""
    for size in options.sizes:
        head(records, part, size)
        hot = hottest(part)
        passes = []
        for workers in (1, 2) if size == compared else (2,):
            passes.append(folder / f"out-{size}-{workers}")
            rows.append(row(size, workers, on_ray(part, passes[-1], workers), hot))
        if size == compared:
            same = f"{size:,} records: {compare(part, passes, folder)}"
            print(same, flush=True)
    hashed = min(HASHED, max(options.sizes))
    head(records, part, hashed)
    body = (
        f"{machine()}. Ray is started for each pass; figures are of single runs.\n\n{table(HEAD, rows)}\n\n{same}\n\n"
        f"{hashed:,} records: {compare_minhash(part, folder)}"
    )
    if options.write:
        write_section("The filter on Ray", body)
    else:
        print(body)


def main() -> None:
    """Parse the options and run the benchmark in --folder or in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of records, ascending")
    parser.add_argument("--folder", type=Path, help="new folder for the files, which are kept")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True)
        report(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report(options, Path(folder))


if __name__ == "__main__":
    main()
