"""Rules about what was measured of a task while it was made; a task of which nothing was measured passes."""

from dataclasses import dataclass

from selfinstruct_local.task import Task

JUDGE = "judge."


@dataclass(frozen=True, slots=True)
class LowConfidence:
    """The check that the engine was sure enough of what it wrote.

    Attributes:
        least: mean log-probability a token of the instruction, in nats; None asks for nothing.
        least_of_output: the same of the output.
    """

    least: float | None
    least_of_output: float | None

    def __call__(self, task: Task) -> str | None:
        """How unsure the engine was, or None."""
        if task.measures:
            wanted = (("confidence", "instruction", self.least), ("output_confidence", "output", self.least_of_output))
            for measure, name, least in wanted:
                value = task.measures.get(measure)
                if value is not None and least is not None and value < least:
                    return f"{value:.2f} nats a token in the {name}, at least {least:g} wanted"
        return None


@dataclass(frozen=True, slots=True)
class JudgedLow:
    """The check that none of a judge's points, the measures named `judge.*`, is below the least allowed."""

    least: float

    def __call__(self, task: Task) -> str | None:
        """The points that are too low, or None."""
        if task.measures:
            for measure, points in task.measures.items():
                if measure.startswith(JUDGE) and points < self.least:
                    return f"{points:g} points for {measure.removeprefix(JUDGE)}, at least {self.least:g} wanted"
        return None
