"""What a training left."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean

from selfinstruct_local.train.data import TrainingData

_ROSE_BY = 1.0  # nats per token, and as much as the loss was at first


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training left.

    Attributes:
        folder: of the model or the adapter.
        data: examples and what was dropped.
        losses: (step, epoch, loss) of each optimizer step; the loss is the mean over its supervised tokens.
        validation: (step, loss) on the held-out examples, after each epoch.
        seconds: of this start's steps alone.
        finished: whether all steps are done; a signal may have ended them.
    """

    folder: Path
    data: TrainingData
    losses: list[tuple[int, float, float]]
    validation: list[tuple[int, float]]
    seconds: float
    finished: bool

    @property
    def epoch_losses(self) -> list[float]:
        """Mean loss of each epoch: the same examples each time, so a fall is learning and not luck."""
        by_epoch: dict[int, list[float]] = {}
        for _, epoch, loss in self.losses:
            by_epoch.setdefault(ceil(epoch), []).append(loss)
        return [sum(each) / len(each) for _, each in sorted(by_epoch.items())]

    @property
    def rise(self) -> tuple[float, float] | None:
        """See `find_rise`."""
        return find_rise([loss for *_, loss in self.losses])


def find_rise(losses: Sequence[float]) -> tuple[float, float] | None:
    """Return the mean loss of the first and the last quarter of the steps if it rose far, else None.

    Far is to double and by at least one nat per token: batches differ by less.
    """
    quarter = len(losses) // 4
    if not quarter:
        return None
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    return (first, last) if last > first + max(first, _ROSE_BY) else None


def describe_rise(first: float, last: float) -> str:
    """Return the warning that the loss has risen from `first` to `last`."""
    return f"warning: the loss rose from {first:.3f} to {last:.3f}, so the model gets worse; lower --learning-rate"
