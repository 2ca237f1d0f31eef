"""Lengths of instructions, inputs and outputs, and histograms with the same bins in all sources.

Words are separated by white space; Chinese, Japanese and Thai are counted in characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.report.sources import ReportSource

FIELDS = ("instruction", "input", "output")
BINS = 30
_PERCENTILE = 99


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in bins of equal width.

    Attributes:
        width: width of a bin; the first begins at 0.
        counts: count of each bin, which includes its lower edge but not its upper one.
        open_ended: whether the last bin includes all longer texts.
    """

    width: float
    counts: tuple[int, ...]
    open_ended: bool


@dataclass(frozen=True, slots=True)
class LengthStatistics:
    """The lengths of one field, in words or characters.

    Attributes:
        count: number of measured texts; empty inputs are left out.
        mean: mean length.
        median: median length.
        p95: 95th percentile.
        longest: greatest length.
        histogram: histogram of the lengths.
    """

    count: int
    mean: float
    median: float
    p95: float
    longest: int
    histogram: Histogram


def field_lengths(source: ReportSource) -> dict[str, NDArray[np.int64]]:
    """Return the lengths of all kept tasks by field, without empty inputs."""
    tasks = [each.task for each in source.kept]
    instances = [instance for task in tasks for instance in task.instances]
    texts = {
        "instruction": [task.instruction for task in tasks],
        "input": [each.input for each in instances if each.input],
        "output": [each.output for each in instances],
    }
    measure = len if source.unit == "characters" else _words
    return {field: np.fromiter(map(measure, texts[field]), np.int64, len(texts[field])) for field in FIELDS}


def _words(text: str) -> int:
    return len(text.split())


def bin_widths(measured: Sequence[tuple[str, Mapping[str, NDArray[np.int64]]]]) -> dict[tuple[str, str], int]:
    """Return bin widths by unit and field, such that 99 % of the lengths of every source fall into at most `BINS` bins.

    Args:
        measured: for each source, its unit and its lengths by field.
    """
    widths: dict[tuple[str, str], int] = {}
    for unit, lengths in measured:
        for field, values in lengths.items():
            wanted = float(np.percentile(values, _PERCENTILE)) / BINS if values.size else 1.0
            widths[unit, field] = max(_round_up(wanted), widths.get((unit, field), 1))
    return widths


def _round_up(value: float) -> int:
    """Return the lowest of 1, 2, 5, 10, 20, 50, ... that is at least `value`."""
    return next(int(step * 10**power) for power in count() for step in (1, 2, 5) if step * 10**power >= value)


def describe_lengths(values: NDArray[np.int64], width: int) -> LengthStatistics:
    """Return the summary and the histogram of a field's lengths."""
    if not values.size:
        return LengthStatistics(0, 0.0, 0.0, 0.0, 0, Histogram(width, (), open_ended=False))
    bins = np.minimum(values // width, BINS)
    return LengthStatistics(
        count=values.size,
        mean=float(values.mean()),
        median=float(np.median(values)),
        p95=float(np.percentile(values, 95)),
        longest=int(values.max()),
        histogram=Histogram(width, tuple(np.bincount(bins).tolist()), open_ended=bool(values.max() >= width * BINS)),
    )
