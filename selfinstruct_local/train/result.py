"""What a training left."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from selfinstruct_local.train.data import TrainingData


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
