"""What the instruction of a task asks for, searched once however many instances the task has."""

import re


class Asking:
    """Tells which patterns occur in an instruction; each is searched at most once."""

    __slots__ = ("_known", "instruction")

    def __init__(self, instruction: str) -> None:
        self.instruction = instruction
        self._known: dict[int, bool] = {}

    def for_any(self, pattern: re.Pattern[str]) -> bool:
        """Return whether `pattern`, a constant of a module, occurs in the instruction."""
        known = self._known.get(id(pattern))
        if known is None:
            known = self._known[id(pattern)] = pattern.search(self.instruction) is not None
        return known
