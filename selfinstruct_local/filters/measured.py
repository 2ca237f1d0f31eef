"""Rules on the measures that a task got during generation; a task without measures passes."""

from dataclasses import dataclass

from selfinstruct_local.task import Task

JUDGE = "judge."


@dataclass(frozen=True, slots=True)
class LowConfidence:
    """The check that the engine was confident enough in its text.

    Attributes:
        least: lowest allowed mean log-probability per token of the instruction, in nats; None disables the check.
        least_of_output: the same for the output.
    """

    least: float | None
    least_of_output: float | None

    def __call__(self, task: Task) -> str | None:
        """Return how low the confidence is, or None."""
        if task.measures:
            wanted = (("confidence", "instruction", self.least), ("output_confidence", "output", self.least_of_output))
            for measure, name, least in wanted:
                value = task.measures.get(measure)
                if value is not None and least is not None and value < least:
                    return f"{value:.2f} nats per token in the {name}, at least {least:g} wanted"
        return None


@dataclass(frozen=True, slots=True)
class JudgedLow:
    """The check that no score of a judge, the measures named `judge.*`, is below the lowest allowed score."""

    least: float

    def __call__(self, task: Task) -> str | None:
        """Return the score that is too low, or None."""
        if task.measures:
            for measure, points in task.measures.items():
                if measure.startswith(JUDGE) and points < self.least:
                    return f"{points:g} points for {measure.removeprefix(JUDGE)}, at least {self.least:g} wanted"
        return None
