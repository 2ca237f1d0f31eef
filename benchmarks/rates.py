"""Rates of counted events with exact intervals, and the averages beside them; nan stands for "nothing can be said".

Leans on SciPy's quantiles. Poisson rates by Garwood's interval, their ratios by Clopper and Pearson's.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import beta, chi2  # type: ignore[import-untyped]

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval; nan where nothing can be said."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        numbers = ["unbounded" if math.isinf(value) else f"{value:.3g}" for value in self]
        return "-" if math.isnan(self.estimate) else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def poisson_rate(count: int, exposure: float) -> Interval:
    """A rate of events with its exact interval.

    Garwood 1936, "Fiducial limits for the Poisson distribution": half the chi-square quantiles with 2n and 2n + 2
    degrees of freedom, over the exposure.

    Args:
        count: events, n.
        exposure: in which they were counted, such as thousands of tokens.
    """
    if exposure <= 0:
        return Interval(math.nan, 0.0, math.inf)
    tail = (1 - LEVEL) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    high = chi2.ppf(1 - tail, 2 * count + 2) / 2
    return Interval(count / exposure, float(low) / exposure, float(high) / exposure)


def poisson_ratio(count: int, exposure: float, base_count: int, base_exposure: float) -> Interval:
    """How many times as high one Poisson rate is as another, with its exact interval.

    Given their sum, the first of two Poisson counts is binomial with p = r t / (r t + t0), where r is the ratio of the
    rates and t, t0 the exposures (Przyborowski and Wilenski 1940). Clopper and Pearson's exact limits of p (1934) give
    those of r = p / (1 - p) * t0 / t. Both take events for independent; tasks of one completion are not quite, so with
    a variance over mean above 1 the truth is wider.

    Args:
        count: events of the one.
        exposure: in which they were counted.
        base_count: events of the other, which the ratio is over.
        base_exposure: in which those were counted.
    """
    total = count + base_count
    if not total or exposure <= 0 or base_exposure <= 0:
        return Interval(math.nan, 0.0, math.inf)
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, count, base_count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, base_count)) if base_count else 1.0
    estimate = count / exposure / (base_count / base_exposure) if base_count else math.inf
    scale = base_exposure / exposure
    return Interval(estimate, low / (1 - low) * scale, high / (1 - high) * scale if high < 1 else math.inf)


def dispersion(counts: Sequence[int]) -> float:
    """Variance over mean, 1 for Poisson; nan for fewer than two counts or none but zeros."""
    mean = statistics.fmean(counts) if counts else 0.0
    return statistics.variance(counts) / mean if len(counts) > 1 and mean else math.nan


def median(values: Sequence[float]) -> float:
    """The middle one; nan for none."""
    return float(statistics.median(values)) if values else math.nan


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; nan for none."""
    return statistics.fmean(values) if values else math.nan
