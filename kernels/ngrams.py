"""Hashed n-grams of tokens, and the overlap of texts with an evaluation set (decontamination).

Overlap of 13-grams is the rule of Brown et al., "Language Models are Few-Shot Learners", 2020, appendix C. The hash is
a polynomial in the hashes of the tokens' bytes (Karp, Rabin 1987), 64 bits, mixed once: the same in every process and
for every vocabulary. Two different n-grams collide with a probability of about 2**-64.
"""

# ruff: noqa: ANN001, ANN202, PLR0917 (Numba infers kernel types; the docstrings state them)

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .cache import kernel
from .tokenize import Encoded, encode
from .vocabulary import TokenizerName


@kernel
def _roll(ids, offsets, token_hashes, n, top, starts, out):  # type: ignore[no-untyped-def]
    """Fill `out` (uint64) with the n-gram hashes of text r, from `starts[r]` on; `top` is B**(n - 1). O(tokens)."""
    base = np.uint64(0x9E3779B97F4A7C15)
    for r in range(offsets.size - 1):
        digest = np.uint64(0)
        at = starts[r]
        for k in range(offsets[r], offsets[r + 1]):
            if k - offsets[r] >= n:
                digest -= token_hashes[ids[k - n]] * top
            digest = digest * base + token_hashes[ids[k]]
            if k - offsets[r] >= n - 1:
                mixed = (digest ^ (digest >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
                out[at] = mixed ^ (mixed >> np.uint64(33))
                at += 1


def ngram_hashes(
    texts: Sequence[str] | Encoded, n: int = 13, tokenizer: TokenizerName = "rouge"
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes of all token n-grams, in order, as (hashes uint64, offsets int64[len(texts) + 1]).

    A text of fewer than `n` tokens has none.

    Raises:
        ValueError: if `n` is less than 1.
        TypeError, ValueError: as in `encode`.
    """
    if n < 1:
        message = f"n must be at least 1, not {n}"
        raise ValueError(message)
    encoded = encode(texts, tokenizer)
    counts = np.maximum(encoded.lengths - (n - 1), 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    hashes = np.empty(offsets[-1], np.uint64)
    top = np.uint64(pow(0x9E3779B97F4A7C15, n - 1, 1 << 64))
    _roll(encoded.ids, encoded.offsets, encoded.vocabulary.hashes, n, top, offsets, hashes)
    return hashes, offsets


class NgramSet:
    """The n-grams of an evaluation set.

    Args:
        texts: texts of the evaluation set.
        n: tokens per n-gram; 13 is customary.
        tokenizer: tokenizer of texts that are not encoded yet.

    Attributes:
        n: tokens per n-gram.
        too_short: number of `texts` that have fewer than `n` tokens and so can never be found.

    Raises:
        TypeError, ValueError: as in `ngram_hashes`.
    """

    def __init__(self, texts: Sequence[str] | Encoded, n: int = 13, tokenizer: TokenizerName = "rouge") -> None:
        hashes, offsets = ngram_hashes(texts, n, tokenizer)
        self.n = n
        self.too_short = int((np.diff(offsets) == 0).sum())
        self._tokenizer: TokenizerName = tokenizer
        self._hashes = np.unique(hashes)

    def __len__(self) -> int:
        return int(self._hashes.size)

    def overlap(self, texts: Sequence[str] | Encoded) -> NDArray[np.int64]:
        """Return for each text how many of its n-grams are in the set, int64[len(texts)]. O(n-grams log set)."""
        hashes, offsets = ngram_hashes(texts, self.n, self._tokenizer)
        found = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.isin(hashes, self._hashes))])
        shared: NDArray[np.int64] = found[offsets[1:]] - found[offsets[:-1]]
        return shared
