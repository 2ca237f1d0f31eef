"""The check for instructions with more numbers than a small model can deal with.

It cannot reckon, and asks about sizes and shares that mean nothing, as how a team of 15 becomes one of 25. Of what the
embedded model asked of its own and answered with enough confidence, a reader throws away half where a number other
than a year stands in the question, and a sixth elsewhere. Leans on nothing.
"""

import re
from dataclasses import dataclass

from selfinstruct_local.tasks import Task

# Digits that stand for a number: not those of COVID-19, 3D, 21st, 24/7 or a version. A character of Chinese may follow.
_NUMBER = re.compile(r"(?<![\w.,/-])\d+(?:[.,]\d+)*(?![\w/])", re.ASCII)
_YEAR = re.compile(r"(?:19|20)\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class ManyNumbers:
    """The check with its limit: the numbers of an instruction, years apart, that are allowed."""

    limit: int

    def __call__(self, task: Task) -> str | None:
        """The numbers that are too many, or None."""
        numbers = [number for number in _NUMBER.findall(task.instruction) if not _YEAR.fullmatch(number)]
        if len(numbers) <= self.limit:
            return None
        return f"the instruction has the numbers {', '.join(numbers)[:60]}, at most {self.limit} wanted"
