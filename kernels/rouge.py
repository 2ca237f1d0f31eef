"""ROUGE-L of one pair or of all pairs of texts, without an index."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .scan import Scanner
from .tokenize import Encoded, encode
from .vocabulary import TokenizerName, Vocabulary


def _in_one_vocabulary(
    first: Sequence[str] | Encoded, second: Sequence[str] | Encoded, tokenizer: TokenizerName
) -> tuple[Encoded, Encoded]:
    """Return both sides encoded with one vocabulary; it is that of a side that is already encoded, if any."""
    if isinstance(first, Encoded) and isinstance(second, Encoded):
        if first.vocabulary is not second.vocabulary:
            if first.vocabulary.tokenizer != second.vocabulary.tokenizer:
                message = "both sides must be encoded with the same tokenizer; encode one of them again"
                raise ValueError(message)
            meaning = second.vocabulary.translate(first.vocabulary)
            first = Encoded(meaning[first.ids], first.offsets, second.vocabulary)
        return first, second
    vocabulary = next((side.vocabulary for side in (first, second) if isinstance(side, Encoded)), None)
    vocabulary = Vocabulary(tokenizer) if vocabulary is None else vocabulary
    return encode(first, vocabulary.tokenizer, vocabulary), encode(second, vocabulary.tokenizer, vocabulary)


def rouge_l_matrix(
    queries: Sequence[str] | Encoded,
    choices: Sequence[str] | Encoded,
    threads: int | None = None,
    tokenizer: TokenizerName = "rouge",
) -> NDArray[np.float64]:
    """Return the ROUGE-L F of every query with every choice, float64[len(queries), len(choices)].

    Args:
        queries: texts, or the result of `encode`.
        choices: the same.
        threads: number of threads that share the queries; all processors of this process if None.
        tokenizer: tokenizer of texts that are not encoded yet.

    Returns:
        The float64 values of google's `rouge_score` (`rougeL`, no stemmer). A few nanoseconds per pair.

    Raises:
        TypeError, ValueError: as in `encode`; ValueError also if `threads` is less than 1.
    """
    left, right = _in_one_vocabulary(queries, choices, tokenizer)
    scanner = Scanner(threads)
    return scanner.scan((left.ids, left.offsets), right.ids, right.offsets, len(right), len(right.vocabulary))


def rouge_l(a: str | Encoded, b: str | Encoded, tokenizer: TokenizerName = "rouge") -> float:
    """Return the ROUGE-L F of two texts, as google's `rouge_score` computes it (`rougeL`, no stemmer).

    Raises:
        TypeError: if an argument is neither a string nor an `Encoded`.
        ValueError: if a string holds a lone surrogate, or an `Encoded` does not hold exactly one text.
    """
    sides = []
    for side in (a, b):
        if not isinstance(side, str | Encoded):
            message = f"expected a text, not {type(side).__name__}"
            raise TypeError(message)
        if isinstance(side, Encoded) and len(side) != 1:
            message = f"expected one text, not {len(side)}"
            raise ValueError(message)
        sides.append([side] if isinstance(side, str) else side)
    return float(rouge_l_matrix(sides[0], sides[1], 1, tokenizer)[0, 0])
