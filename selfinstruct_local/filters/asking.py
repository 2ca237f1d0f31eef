"""A cache of the pattern searches in an instruction, so that each runs once for all instances of the task."""

import re


class Asking:
    """An instruction whose patterns are each searched at most once."""

    __slots__ = ("_known", "instruction")

    def __init__(self, instruction: str) -> None:
        self.instruction = instruction
        self._known: dict[int, bool] = {}

    def for_any(self, pattern: re.Pattern[str]) -> bool:
        """Return whether `pattern`, which must be a module constant, occurs in the instruction."""
        known = self._known.get(id(pattern))
        if known is None:
            known = self._known[id(pattern)] = pattern.search(self.instruction) is not None
        return known
