"""Lengths of instructions, inputs and outputs, and histograms whose bins are the same in all sources.

Words are what white space divides; Chinese, Japanese and Thai are counted in characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.report.sources import Source

FIELDS = ("instruction", "input", "output")
BINS = 30
_PERCENTILE = 99


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of equal bins.

    Attributes:
        width: of a bin; the first begins at 0.
        counts: of each bin. A bin has its lower edge and not its upper one.
        open_ended: whether the last bin takes all that is longer too.
    """

    width: float
    counts: tuple[int, ...]
    open_ended: bool


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of one field.

    Attributes:
        count: how many were measured; of inputs those that are not empty.
        mean: of them, as the following, in words or characters.
        median: half of them are shorter.
        p95: one in twenty is longer.
        longest: the longest.
        histogram: of them.
    """

    count: int
    mean: float
    median: float
    p95: float
    longest: int
    histogram: Histogram


def field_lengths(source: Source) -> dict[str, NDArray[np.int64]]:
    """The lengths of all kept tasks by field; of inputs those that are not empty."""
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
    """Widths by unit and field, such that 99 in 100 lengths of every source fall into `BINS` bins or fewer.

    Args:
        measured: unit of each source, and its lengths by field.
    """
    widths: dict[tuple[str, str], int] = {}
    for unit, lengths in measured:
        for field, values in lengths.items():
            wanted = float(np.percentile(values, _PERCENTILE)) / BINS if values.size else 1.0
            widths[unit, field] = max(_round_up(wanted), widths.get((unit, field), 1))
    return widths


def _round_up(value: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    return next(int(step * 10**power) for power in count() for step in (1, 2, 5) if step * 10**power >= value)


def describe_lengths(values: NDArray[np.int64], width: int) -> Lengths:
    """Counts and histogram of the lengths of a field."""
    if not values.size:
        return Lengths(0, 0.0, 0.0, 0.0, 0, Histogram(width, (), open_ended=False))
    bins = np.minimum(values // width, BINS)
    return Lengths(
        count=values.size,
        mean=float(values.mean()),
        median=float(np.median(values)),
        p95=float(np.percentile(values, 95)),
        longest=int(values.max()),
        histogram=Histogram(width, tuple(np.bincount(bins).tolist()), open_ended=bool(values.max() >= width * BINS)),
    )
