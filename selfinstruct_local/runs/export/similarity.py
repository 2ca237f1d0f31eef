"""The most similar earlier instructions of each instruction in a pool, for the two extra fields of `regen.json`."""

from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_local.kernels import NoveltyIndex, TokenizerName, encode
from selfinstruct_local.kernels.scan import top

NEAREST = 10  # as in the published program


class Similarity(NamedTuple):
    """The similarity of an instruction to all earlier ones.

    Attributes:
        nearest: ROUGE-L F in [0, 1] of the ten most similar instructions, best first, the earlier one first at equal
            scores. Fewer if two of them have the same text, or if there are fewer than ten.
        mean: mean ROUGE-L F with all earlier instructions; 0.0 for the first one.
    """

    nearest: dict[str, float]
    mean: float


class Neighborhood:
    """Instructions in the order in which they were added; each addition costs a full scan."""

    def __init__(self, instructions: Sequence[str], tokenizer: TokenizerName) -> None:
        """Create the neighborhood with `instructions` (the seeds), which are not compared with each other."""
        self._instructions = list(instructions)
        self._index = NoveltyIndex(prefilter="none", tokenizer=tokenizer)
        self._index.add(self._instructions)

    def join(self, instruction: str) -> Similarity:
        """Return the similarity of `instruction` to all earlier ones, then add it."""
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
