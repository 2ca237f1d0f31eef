"""The intervals are the published ones, and an average of nothing is no number."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")

from rates import dispersion, mean, median, poisson_rate, poisson_ratio


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood's table, as it stands in textbooks.
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390), (15, 8.395, 24.740)],
)
def test_the_interval_of_a_rate_is_garwoods(count: int, low: float, high: float) -> None:
    found = poisson_rate(count, 1.0)
    assert found == pytest.approx((count, low, high), abs=1e-3)
    assert poisson_rate(count, 4.0) == pytest.approx([value / 4 for value in found])


def test_the_interval_of_a_ratio_is_the_conditional_binomials() -> None:
    # Clopper-Pearson for 10 of 10: the lower limit solves p^10 = 0.025.
    p = 0.025 ** (1 / 10)
    found = poisson_ratio(10, 1.0, 0, 1.0)
    assert found == pytest.approx((math.inf, p / (1 - p), math.inf))
    # 8 of 10: the textbook's (0.4439, 0.9748).
    found = poisson_ratio(8, 1.0, 2, 1.0)
    assert found == pytest.approx((4.0, 0.4439 / 0.5561, 0.9748 / 0.0252), rel=1e-2)
    assert poisson_ratio(8, 5.0, 2, 1.0).low == pytest.approx(found.low / 5)


def test_a_ratio_turned_over_has_its_limits_turned_over() -> None:
    one, other = poisson_ratio(40, 3.0, 15, 9.0), poisson_ratio(15, 9.0, 40, 3.0)
    assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))
    assert poisson_ratio(0, 1.0, 3, 1.0)[:2] == (0.0, 0.0)
    assert str(poisson_ratio(0, 1.0, 0, 1.0)) == "-"
    assert str(poisson_ratio(3, 1.0, 0, 1.0)).startswith("unbounded [")


def test_averages_of_nothing_are_no_numbers() -> None:
    assert all(
        math.isnan(value) for value in (mean([]), median([]), dispersion([]), dispersion([3]), dispersion([0, 0]))
    )
    assert (mean([1, 2, 6]), median([1, 2, 6]), dispersion([0, 4])) == (3.0, 2.0, 4.0)
