"""Time and page size of `selfinstruct report` for a file of records.

    python benchmarks/bench_report.py [FILE] [--write]

Without FILE, the records are generated: as many instructions (`corpus.py`) as the Alpaca data has, with outputs of
three sentences. Each figure is for `selfinstruct report` in its own process, from start to exit.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import machine, pin_threads, seconds, table, write_section

pin_threads(1)

import orjson  # noqa: E402 - after pinning the threads

from corpus import InstructionModel  # noqa: E402

RECORDS = 52_002
REPEATS = 2


def make_records(path: Path) -> None:
    """Write the generated records to `path`."""
    model = InstructionModel()
    with path.open("wb") as stream:
        for _ in range(RECORDS):
            output = " ".join(model.instruction() for _ in range(3))
            record = {"instruction": model.instruction(), "input": "", "output": output}
            stream.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def measure(records: Path, page: Path) -> tuple[float, int]:
    """Return the seconds of the whole process, and the number of instructions that it parsed."""
    command = (sys.executable, "-m", "selfinstruct_local", "report", records, "--out", page, "--json")
    # The thread counts of libraries are not pinned, as for users.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True, env=environment)
    spent = time.perf_counter() - started
    verbs = orjson.loads(done.stdout)["sources"][0]["verbs"]
    return spent, verbs["parsed"] if verbs else 0


def report(records: Path, name: str, *, write: bool) -> None:
    """Measure, and print the section or write it to RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        spent, parsed = min(measure(records, page) for _ in range(REPEATS))
        size = page.stat().st_size / 1e6
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    count = sum(1 for line in records.open("rb") if line.strip())
    rows = [
        ("records", f"{count:,}"),
        ("instructions parsed", f"{parsed:,}"),
        ("whole process", seconds(spent)),
        ("page", f"{size:.1f} MB"),
        ("peak memory of the largest process", f"{memory:.0f} MiB"),
    ]
    body = f"{machine()}\n\n{name}. Minimum of {REPEATS}.\n\n{table(('what', 'value'), rows)}"
    if write:
        write_section("The report of a file", body)
    else:
        print(body)


def main() -> None:
    """Parse the options, and measure the given file or generated records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="file of records, one JSON object per line")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    if options.file:
        report(options.file, f"`{options.file.name}`", write=options.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "generated.jsonl"
        make_records(records)
        report(records, "Generated records", write=options.write)


if __name__ == "__main__":
    main()
