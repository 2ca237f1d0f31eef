"""Yield and novelty over the jobs of a run or the rows of a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.report.sources import JobCounts

STEPS = 40
_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """A range of consecutive jobs or rows.

    Attributes:
        first: first job, or row counted from 0.
        last: last job or row.
        candidates: number of candidates of its jobs; 0 in a file.
        accepted: number of accepted candidates; number of rows in a file.
        completion_tokens: number of generated tokens; 0 in a file.
        accepted_per_1000_tokens: accepted tasks per 1,000 generated tokens; None if no token was counted.
        median_nearest: median ROUGE-L F of its accepted instructions with the nearest earlier one; None if none was
            scanned.
    """

    first: int
    last: int
    candidates: int
    accepted: int
    completion_tokens: int
    accepted_per_1000_tokens: float | None
    median_nearest: float | None


def over_jobs(jobs: Sequence[JobCounts], nearest: NDArray[np.float64]) -> list[Step]:
    """Return steps with equal numbers of jobs.

    Args:
        jobs: jobs of a run, in order.
        nearest: float64[accepted], for the accepted instructions in order, without inherited ones.
    """
    ends = np.cumsum([0, *(job.accepted for job in jobs)])
    steps = []
    for first, last in _stretches(len(jobs)):
        chosen = jobs[first:last]
        tokens = sum(job.completion_tokens for job in chosen)
        accepted = sum(job.accepted for job in chosen)
        rate = _THOUSAND * accepted / tokens if tokens else None
        median = _median(nearest[ends[first] : ends[last]])
        candidates = sum(job.candidates for job in chosen)
        steps.append(Step(first, last - 1, candidates, accepted, tokens, rate, median))
    return steps


def over_rows(nearest: NDArray[np.float64]) -> list[Step]:
    """Return steps with equal numbers of rows of a file, with the medians of `nearest` (float64[rows])."""
    return [
        Step(first, last - 1, 0, last - first, 0, None, _median(nearest[first:last]))
        for first, last in _stretches(nearest.size)
    ]


def _stretches(count: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, count, min(STEPS, count) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
