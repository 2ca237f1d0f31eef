"""Loss curves as files: `loss.csv`, with one row per step, and `loss.png`, its plot."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE = "loss.csv"
PLOT = "loss.png"
_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")


def write_table(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write `loss.csv`: step, epoch, loss, learning rate and gradient norm of each optimizer step.

    Args:
        folder: output folder of the training.
        history: the Trainer's log history; entries without a loss are skipped.
    """
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows([entry.get(name, "") for name in _COLUMNS] for entry in history if "loss" in entry)


def plot(folder: Path, losses: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]]) -> None:
    """Write `loss.png`: the loss of each step, its running mean, and the loss on held-out examples.

    Args:
        folder: output folder of the training.
        losses: (step, loss) of each optimizer step.
        validation: (step, loss) on the held-out examples.
    """
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
    axes.set_ylabel("loss (nats per token)")
    axes.legend()
    figure.savefig(folder / PLOT, dpi=120)


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    return [sum(values[max(0, end - width) : end]) / min(width, end) for end in range(1, len(values) + 1)]
