"""What each instruction of a pool was most similar to when it joined: the two fields that make a `regen.json`."""

from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_local.kernels import NoveltyIndex, TokenizerName, encode
from selfinstruct_local.kernels.scan import top

NEAREST = 10  # as many as the published program wrote down


class Similarity(NamedTuple):
    """How an instruction stands to those before it.

    Attributes:
        nearest: the ten most similar instructions with their ROUGE-L F in [0, 1], best first, of equal scores the
            earlier one first. Fewer where the same text stands twice among them, or there are no ten.
        mean: ROUGE-L F with each of those before it, on average; 0.0 for the first of all.
    """

    nearest: dict[str, float]
    mean: float


class Neighborhood:
    """Instructions in the order in which they joined; each further one costs a full scan."""

    def __init__(self, instructions: Sequence[str], tokenizer: TokenizerName) -> None:
        """Starts with `instructions` (the seeds), which are not compared with each other."""
        self._instructions = list(instructions)
        self._index = NoveltyIndex(prefilter="none", tokenizer=tokenizer)
        self._index.add(self._instructions)

    def join(self, instruction: str) -> Similarity:
        """Compares `instruction` with all before it, then adds it."""
        encoded = encode([instruction], self._index.tokenizer, self._index.vocabulary)
        scores = self._index.scores(encoded)
        positions, best = top(scores, NEAREST)
        nearest = {
            self._instructions[position]: score
            for position, score in zip(positions.tolist(), best.tolist(), strict=True)
        }
        mean = float(scores.mean()) if scores.size else 0.0
        self._index.add(encoded)
        self._instructions.append(instruction)
        return Similarity(nearest, mean)
