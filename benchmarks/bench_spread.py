"""Diversity of the accepted tasks of runs, compared with as many Alpaca records, and the change of the yield over time.

    python benchmarks/bench_spread.py RUN [RUN ...] --alpaca FILE [--write]

RUN is the folder of a finished run of `selfinstruct generate`; FILE has the published Alpaca records in their order and
may be gzipped. Each is measured on its first 50, 100, 200 and 400 tasks, if it has that many.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from bench_rules import read_file
from finished_runs import FinishedRun, JobYield, percent, read_runs, with_input
from results import table, write_section

from selfinstruct_local.errors import UserFacingError
from selfinstruct_local.languages.base import TOKENIZERS
from selfinstruct_local.report.make import check_report_extra
from selfinstruct_local.report.novelty import measure_similarity
from selfinstruct_local.report.verbs import MAX_CHARACTERS, root_verbs
from selfinstruct_local.task import Task

TITLE = "Spread"
SIZES = (50, 100, 200, 400)
HUNDRED = 100
THRESHOLD = 0.7  # affects only the number of near copies, which is not reported
HEAD = (
    "tasks",
    "source",
    "root verbs",
    "per 100 tasks",
    "nearest ROUGE-L, seeds before",
    "without seeds",
    "with input",
    "classification",
)
ABOUT = (
    "The first tasks of each source: accepted tasks with an instance, in the order in which they joined the pool, and "
    "the published Alpaca records in their order. Root verbs: number of distinct ones, by the parser of `selfinstruct "
    "report` (English only). Nearest ROUGE-L: mean over the tasks of the highest F of the instruction with an earlier "
    "one, once with the seeds of the run before the first task, as the run decides, and once only among the tasks, as "
    "for Alpaca. A dash: the source has no such label, or no seeds."
)
ABOUT_YIELD = (
    "Accepted tasks per 1,000 generated tokens, for each full hundred of accepted tasks. A hundred begins where the "
    "previous one ends. The tokens of a job with several accepted tasks are spread over them; those of jobs with none "
    "count for the next accepted task."
)


@dataclass(frozen=True, slots=True)
class Source:
    """Tasks in their order.

    Attributes:
        name: name in the table.
        lang: language of the tasks.
        earlier: instructions before the first task, such as seeds.
        tasks: tasks to measure.
        kinds_known: whether the source labels classification tasks.
    """

    name: str
    lang: str
    earlier: Sequence[str]
    tasks: Sequence[Task]
    kinds_known: bool


def main() -> None:
    """Parse the options, measure all sources, and print the section or write it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--alpaca", type=Path, required=True, metavar="FILE", help="the published Alpaca records")
    parser.add_argument("--write", action="store_true", help="write the section to RESULTS.md")
    options = parser.parse_args()
    try:
        check_report_extra()  # for the parser of root verbs
        runs = read_runs(options.runs, may_be_running=not options.write)
        alpaca = read_file(options.alpaca)[: SIZES[-1]]
    except (UserFacingError, OSError) as error:
        parser.error(str(error))
    report = make_report(runs, Source("Alpaca", "en", (), alpaca, kinds_known=False))
    if options.write:
        write_section(TITLE, report)
    else:
        print(f"## {TITLE}\n\n{report}")


def make_report(runs: Sequence[FinishedRun], alpaca: Source) -> str:
    """Return the section of RESULTS.md."""
    sources = [Source(run.name, run.lang, run.earlier, run.accepted, kinds_known=True) for run in runs]
    columns = [spread_rows(source) for source in [*sources, alpaca]]
    rows = [rows[size] for size in SIZES for rows in columns if size in rows]
    few = [f"{run.name} has {len(run.accepted)} accepted tasks" for run in runs if len(run.accepted) < SIZES[0]]
    parts = [ABOUT, table(HEAD, rows), *([f"Too few to measure: {', '.join(few)}."] if few else [])]
    if long := [run for run in runs if len(run.accepted) >= HUNDRED]:
        head = ("run", "first hundred", "last full hundred", "last over first", "each hundred")
        parts += [ABOUT_YIELD, table(head, [yield_row(run) for run in long])]
    return "\n\n".join(parts)


def spread_rows(source: Source) -> dict[int, list[object]]:
    """Return the rows of a source by size, for each size that it has enough tasks for."""
    tasks = source.tasks[: SIZES[-1]]
    instructions = [task.instruction for task in tasks]
    before, alone = (_nearest(earlier, instructions, source.lang) for earlier in (source.earlier, ()))
    verbs = []
    if source.lang == "en":
        verbs = [found.verb for found in root_verbs(text[:MAX_CHARACTERS] for text in instructions)]
    rows: dict[int, list[object]] = {}
    for size in SIZES:
        if size > len(tasks):
            break
        distinct = len(set(verbs[:size]) - {""})
        first = tasks[:size]
        rows[size] = [
            size,
            source.name,
            distinct if verbs else "-",
            f"{100 * distinct / size:.0f}" if verbs else "-",
            f"{np.nanmean(before[:size]):.3f}" if source.earlier else "-",
            f"{np.nanmean(alone[:size]):.3f}",
            percent(with_input(first), size),
            percent(sum(bool(task.is_classification) for task in first), size) if source.kinds_known else "-",
        ]
    return rows


def _nearest(earlier: Sequence[str], instructions: Sequence[str], lang: str) -> np.ndarray:
    """Return float64[instructions]: the highest ROUGE-L F with an earlier instruction; NaN if there is none."""
    tokenizer = TOKENIZERS["zh" if lang == "zh" else "en"]
    return measure_similarity(earlier, instructions, tokenizer, THRESHOLD, seeds_stand_before=bool(earlier)).to_earlier


def yield_row(run: FinishedRun) -> list[object]:
    """Return the cells of a run's row in the table of yields."""
    rates = yields(run.jobs)
    ratio = f"{100 * rates[-1] / rates[0]:.0f} %" if len(rates) > 1 else "-"
    return [run.name, f"{rates[0]:.3g}", f"{rates[-1]:.3g}", ratio, ", ".join(f"{rate:.3g}" for rate in rates)]


def yields(jobs: Sequence[JobYield]) -> list[float]:
    """Return accepted tasks per 1,000 tokens of each full hundred of accepted tasks."""
    accepted, tokens = [0], [0]
    spent = 0
    for job in jobs:
        spent += job.tokens
        if job.accepted:
            accepted.append(accepted[-1] + job.accepted)
            tokens.append(spent)
    ends = np.interp(np.arange(0, accepted[-1] + 1, HUNDRED), accepted, tokens)
    return [1000 * HUNDRED / (after - before) for before, after in pairwise(ends.tolist())]


if __name__ == "__main__":
    main()
