"""The losses of a training as files: `loss.csv`, a line a step, and `loss.png`, a plot of it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE = "loss.csv"
PLOT = "loss.png"
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")


def write_table(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes step, epoch, loss, learning rate and norm of the gradient of each optimizer step.

    Args:
        folder: of the training.
        history: the Trainer's log; entries without a loss are of other things.
    """
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows([entry.get(name, "") for name in _COLUMNS] for entry in history if "loss" in entry)


def plot(folder: Path, losses: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> None:
    """Draws (step, loss) of the steps, their running mean, and the loss on held-out examples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    axes = figure.add_subplot()
    steps, values = [step for step, _ in losses], [loss for _, loss in losses]
    axes.plot(steps, values, color="0.75", linewidth=0.8, label="each step")
    axes.plot(steps, _running_mean(values, max(1, len(values) // 20)), label="mean of the last twentieth")
    if validation:
        axes.plot(*zip(*validation, strict=True), marker="o", label="held out")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats a token)")
    axes.legend()
    figure.savefig(folder / PLOT, dpi=120)


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    return [sum(values[max(0, end - width) : end]) / min(width, end) for end in range(1, len(values) + 1)]
