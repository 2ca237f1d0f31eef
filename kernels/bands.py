"""All pairs of near texts that share a MinHash band, found in parts: what `pairs` is, with bands for rare tokens.

A part owns some of the bands, and of each band some of the values. Unlike the exact join it may miss a pair, as
`minhash` says, and a pair may come from several parts.

Leans on: numpy, the bounds, MinHash, the pairs.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers the types of kernels; their docstrings say them)

import numpy as np
from numpy.typing import NDArray

from .bounds import signature_of, sort_occurrences
from .cache import inner, kernel
from .lcs import WORD, clear_pattern, need, popcount, score_query, set_pattern
from .minhash import Bands, band_digest, minhash_rows, permutations
from .pairs import Copies, Pairs, Texts, join

_MIX = np.uint64(0x9E3779B97F4A7C15)


@kernel
def digest_bands(signatures, lengths, digests):  # type: ignore[no-untyped-def]
    """Fill `digests` (uint64[n, bands]) with one hash for the values of each band, at least 1; 0 for an empty text."""
    rows = signatures.shape[1] // digests.shape[1]
    for r in range(digests.shape[0]):
        for band in range(digests.shape[1]):
            digest = band_digest(signatures[r], band, rows)
            digests[r, band] = max(digest, np.uint64(1)) if lengths[r] > 0 else np.uint64(0)


def band_digests(texts: Texts, vocabulary: int, bands: Bands, seed: int) -> NDArray[np.uint64]:
    """Return one hash for each text and band, uint64[n, bands]: texts that agree in a band have the same there.

    Args:
        texts: numbered from the rarest token; the numbers are what is hashed.
        vocabulary: how many tokens there are.
        bands: see `minhash.choose_bands`.
        seed: of the permutations.
    """
    lengths = np.diff(texts.offsets)
    signatures = np.empty((lengths.size, bands.bands * bands.rows), np.uint32)
    hashes = (np.arange(vocabulary, dtype=np.uint64) + np.uint64(1)) * _MIX
    occurrences = np.empty(int(lengths.max(initial=1)), np.int64)
    order = np.arange(vocabulary, dtype=np.int32)
    minhash_rows(
        texts.ids, texts.offsets, order, hashes, permutations(signatures.shape[1], seed), occurrences, signatures
    )
    digests = np.empty((lengths.size, bands.bands), np.uint64)
    digest_bands(signatures, lengths, digests)
    return digests


@kernel
def parities(ids, offsets, order, occurrences, parity):  # type: ignore[no-untyped-def]
    """Fill `parity` (uint64[n]) with the parity signature of each text."""
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        sort_occurrences(row, order, occurrences[: row.size])
        parity[r] = signature_of(occurrences[: row.size])


@inner
def agree_before(digests, one, other, band):  # type: ignore[no-untyped-def]
    """Tell whether two rows share a band before `band`."""
    for b in range(band):  # noqa: SIM110 (a generator is no kernel)
        if digests[one, b] != 0 and digests[one, b] == digests[other, b]:
            return True
    return False


@inner
def may_pass(m, n, parity, other, threshold):  # type: ignore[no-untyped-def]
    """Tell whether lengths and parity signatures leave it open that two texts are near (see `prefix`)."""
    return popcount(parity ^ other) <= m + n - 2 * need(m, n, threshold)


@kernel
def pair_band(  # type: ignore[no-untyped-def]  # noqa: C901 (one loop, split it would be passed a dozen arrays)
    ids, offsets, digests, band, ranked, first, parity, threshold, pattern, carries, left, right, scores
):
    """Pair the texts that agree in `band` and in none before it; return (places of `ranked` done, pairs found).

    `ranked` (int64[n]): the rows by their digest, equal ones by number. Begins at place `first`, and stops early when
    there might be no room for the pairs of a row.
    """
    count, start = 0, first
    while start > 0 and digests[ranked[start - 1], band] == digests[ranked[first], band]:
        start -= 1
    for at in range(first, ranked.size):
        r = ranked[at]
        if digests[r, band] != digests[ranked[start], band]:
            start = at
        if digests[r, band] == 0:
            continue
        if count + at - start > left.size:
            return at, count
        row = ids[offsets[r] : offsets[r + 1]]
        if row.size <= WORD:
            set_pattern(row, pattern)
        for k in range(start, at):
            other = ranked[k]
            begin, end = offsets[other], offsets[other + 1]
            if not may_pass(row.size, end - begin, parity[r], parity[other], threshold):
                continue
            score = score_query(row, ids, begin, end, pattern, carries)
            if score > threshold and not agree_before(digests, r, other, band):
                left[count], right[count], scores[count] = other, r, score
                count += 1
        if row.size <= WORD:
            clear_pattern(row, pattern)
    return ranked.size, count


def band_pairs(texts: Texts, digests: NDArray[np.uint64], vocabulary: int, threshold: float) -> Pairs:
    """Return the pairs of `texts` above `threshold` that share a band, each once; copies as in `pairs.near_pairs`.

    Args:
        texts: numbered from the rarest token.
        digests: uint64[n, bands], the bands of this part; 0 where another part has the text.
        vocabulary: how many tokens there are.
        threshold: in (0, 1].
    """
    copies = Copies(texts)
    found = _distinct_pairs(copies.distinct, digests[copies.rows], vocabulary, threshold)
    return copies.add_to(found, threshold)


def _distinct_pairs(texts: Texts, digests: NDArray[np.uint64], vocabulary: int, threshold: float) -> Pairs:
    """See `band_pairs`; no two texts have the same tokens."""
    ids, offsets = texts
    count, longest = offsets.size - 1, int(np.diff(offsets).max(initial=1))
    parity = np.empty(count, np.uint64)
    parities(ids, offsets, np.arange(vocabulary, dtype=np.int32), np.empty(longest, np.int64), parity)
    pattern, carries = np.zeros(vocabulary, np.uint64), np.zeros(longest, np.uint8)
    left, right = np.empty((2, count + 1), np.int64)
    scores = np.empty(count + 1)
    found: list[Pairs] = []
    for band in range(digests.shape[1]):
        ranked = np.argsort(digests[:, band], kind="stable")
        done = 0
        while done < count:
            done, pairs = pair_band(
                ids, offsets, digests, band, ranked, done, parity, threshold, pattern, carries, left, right, scores
            )  # fmt: skip
            found.append(Pairs(left[:pairs].copy(), right[:pairs].copy(), scores[:pairs].copy()))
    return join(found)
