"""Rates of counted events with their intervals, and averages; nan if there are no values."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import chi2  # type: ignore[import-untyped]

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval; nan if there is no estimate."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        numbers = ["unbounded" if math.isinf(value) else f"{value:.3g}" for value in self]
        return "-" if math.isnan(self.estimate) else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def poisson_rate(count: int, exposure: float, scale: float = 1.0) -> Interval:
    """Return a rate of events with its 95 % interval.

    Garwood 1936, "Fiducial limits for the Poisson distribution": half the chi-square quantiles with 2n and 2n + 2
    degrees of freedom, over the exposure. Exact for `scale` 1; for counts that vary more than a Poisson variable, n and
    the exposure are divided by `scale` first (quasi-likelihood; McCullagh and Nelder 1989, section 6.2.3).

    Args:
        count: number of events, n.
        exposure: amount in which they were counted, such as thousands of tokens.
        scale: variance over mean of the count, at least 1.
    """
    if exposure <= 0:
        return Interval(math.nan, 0.0, math.inf)
    tail = (1 - LEVEL) / 2
    events, window = count / scale, exposure / scale
    low = chi2.ppf(tail, 2 * events) / 2 if count else 0.0
    high = chi2.ppf(1 - tail, 2 * events + 2) / 2
    return Interval(count / exposure, float(low) / window, float(high) / window)


def dispersion(counts: Sequence[int]) -> float:
    """Return the variance over the mean, 1 for Poisson; nan for fewer than two counts or if all are zero."""
    mean = statistics.fmean(counts) if counts else 0.0
    return statistics.variance(counts) / mean if len(counts) > 1 and mean else math.nan


def median(values: Sequence[float]) -> float:
    """Return the median; nan if there are no values."""
    return float(statistics.median(values)) if values else math.nan


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean; nan if there are no values."""
    return statistics.fmean(values) if values else math.nan
