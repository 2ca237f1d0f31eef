"""The intervals are the published ones, and an average of nothing is no number."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")

from rates import dispersion, mean, median, poisson_rate


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood's table, as it stands in textbooks.
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390), (15, 8.395, 24.740)],
)
def test_the_interval_of_a_rate_is_garwoods(count: int, low: float, high: float) -> None:
    found = poisson_rate(count, 1.0)
    assert found == pytest.approx((count, low, high), abs=1e-3)
    assert poisson_rate(count, 4.0) == pytest.approx([value / 4 for value in found])


def test_counts_that_vary_more_have_a_wider_interval() -> None:
    # 20 events with four times the variance tell as much as 5.
    found = poisson_rate(20, 4.0, 4.0)
    assert found == pytest.approx((5.0, 1.6235, 11.668), abs=1e-3)
    assert str(found) == "5 [1.62, 11.7]"
    assert str(poisson_rate(0, 0.0)) == "-"


def test_averages_of_nothing_are_no_numbers() -> None:
    assert all(
        math.isnan(value) for value in (mean([]), median([]), dispersion([]), dispersion([3]), dispersion([0, 0]))
    )
    assert (mean([1, 2, 6]), median([1, 2, 6]), dispersion([0, 4])) == (3.0, 2.0, 4.0)
