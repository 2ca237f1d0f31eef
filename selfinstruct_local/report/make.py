"""Makes a report: reads the sources, computes the statistics, and writes the page."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.progress import counting, waiting
from selfinstruct_local.report import verbs
from selfinstruct_local.report.novelty import SimilarityScores, measure_similarity
from selfinstruct_local.report.page import render_page
from selfinstruct_local.report.rows import sample_rows
from selfinstruct_local.report.sources import ReportSource, read_source, source_names, with_nearest
from selfinstruct_local.report.statistics import SourceStatistics, make_statistics
from selfinstruct_local.runs.targets import check_targets

if TYPE_CHECKING:
    from rich.console import Console

_NEEDED = ("jinja2", "plotly", "spacy", verbs.MODEL)


def make_report(paths: Sequence[Path], out: Path, seeds: Path | None, console: "Console") -> list[SourceStatistics]:
    """Write the page, complete or not at all, and return its statistics.

    Args:
        paths: run folders or task files, in the order of the page.
        out: the HTML file.
        seeds: seeds to compare instructions with, instead of each source's own.
        console: for progress.

    Raises:
        UsageError: a source cannot be read, `out` cannot be written or is a source, or the extra is missing.
        RunError: the disk is full.
    """
    check_report_extra()
    names = source_names(paths)
    check_targets({"--out": out}, [*paths, seeds])
    sources: list[ReportSource] = []
    for path, name in zip(paths, names, strict=True):
        with counting(console, f"{name}: reading") as advance:
            sources.append(read_source(path, seeds, name, advance))
    nears = [_measure(source, console) for source in sources]
    figures = make_statistics(sources, nears, console)
    shown = [with_nearest(source, near) for source, near in zip(sources, nears, strict=True)]
    with waiting(console, f"writing {out.name}"):
        page = render_page(figures, [sample_rows(source) for source in shown])
        with replace_atomically(out) as stream:
            stream.write(page.encode())
    return figures


def _measure(source: ReportSource, console: "Console") -> SimilarityScores:
    with waiting(console, f"{source.name}: comparing {len(source.kept)} instructions"):
        return measure_similarity(
            [seed.instruction for seed in source.seeds],
            [each.task.instruction for each in source.kept],
            source.tokenizer,
            source.threshold,
            seeds_stand_before=bool(source.earlier),
        )


def check_report_extra() -> None:
    """Raise an error if a library of the extra is missing.

    Raises:
        UsageError: names the first missing library.
    """
    missing = next((name for name in _NEEDED if find_spec(name) is None), None)
    if missing:
        message = f"report needs '{missing}'; install this package with its extra 'report'"
        raise UsageError(message)
