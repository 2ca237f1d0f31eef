"""The result of a training: losses, duration, and whether it finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean

from selfinstruct_local.train.data import TrainingData

_ROSE_BY = 1.0  # nats per token; the loss must also have doubled


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        folder: folder of the model or the adapter.
        data: training data and counts of dropped samples.
        losses: (step, epoch, loss) of each optimizer step; the loss is the mean over the step's trainable tokens.
        validation: (step, loss) on the held-out examples, after each epoch.
        seconds: duration of the steps of this start only.
        finished: whether all steps are done; False if a signal stopped the training.
    """

    folder: Path
    data: TrainingData
    losses: list[tuple[int, float, float]]
    validation: list[tuple[int, float]]
    seconds: float
    finished: bool

    @property
    def epoch_losses(self) -> list[float]:
        """Mean loss of each epoch; every epoch has the same examples, so the values are comparable."""
        by_epoch: dict[int, list[float]] = {}
        for _, epoch, loss in self.losses:
            by_epoch.setdefault(ceil(epoch), []).append(loss)
        return [sum(each) / len(each) for _, each in sorted(by_epoch.items())]

    @property
    def rise(self) -> tuple[float, float] | None:
        """Mean loss of the first and the last quarter of the steps if it rose far, else None (see `find_rise`)."""
        return find_rise([loss for *_, loss in self.losses])


def find_rise(losses: Sequence[float]) -> tuple[float, float] | None:
    """Return the mean loss of the first and the last quarter of the steps if it rose far, else None.

    "Far" means at least doubled and at least one nat per token higher; batches differ by less.
    """
    quarter = len(losses) // 4
    if not quarter:
        return None
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    return (first, last) if last > first + max(first, _ROSE_BY) else None


def describe_rise(first: float, last: float) -> str:
    """Return the warning that the loss rose from `first` to `last`."""
    return f"warning: the loss rose from {first:.3f} to {last:.3f}, so the model gets worse; lower --learning-rate"
