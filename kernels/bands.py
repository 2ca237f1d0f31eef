"""All pairs of near texts that share a MinHash band, found in parts: `pairs` with bands in place of rare tokens.

A part owns some of the bands, and some of the values of each band. Unlike the exact join, this one may miss a pair
(see `minhash`), and several parts may report the same pair.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

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
    """Fill `digests` (uint64[n, bands]) with one hash per text and band, at least 1; 0 for an empty text."""
    rows = signatures.shape[1] // digests.shape[1]
    for r in range(digests.shape[0]):
        for band in range(digests.shape[1]):
            digest = band_digest(signatures[r], band, rows)
            digests[r, band] = max(digest, np.uint64(1)) if lengths[r] > 0 else np.uint64(0)


def band_digests(texts: Texts, vocabulary: int, bands: Bands, seed: int) -> NDArray[np.uint64]:
    """Return one hash per text and band, uint64[n, bands]; texts that agree in a band have the same hash there.

    Args:
        texts: texts with tokens numbered from the rarest; the numbers are hashed.
        vocabulary: number of tokens.
        bands: number of bands and rows, see `minhash.choose_bands`.
        seed: random seed of the permutations.
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
    """Return whether rows `one` and `other` agree in any band before `band`."""
    for b in range(band):  # noqa: SIM110 (no generator expressions in kernels)
        if digests[one, b] != 0 and digests[one, b] == digests[other, b]:
            return True
    return False


@inner
def may_pass(m, n, parity, other, threshold):  # type: ignore[no-untyped-def]
    """Return whether the bounds on lengths and parity signatures allow F > `threshold` (see `prefix`).

    `m`, `n`: lengths of the two texts. `parity`, `other`: their parity signatures.
    """
    return popcount(parity ^ other) <= m + n - 2 * need(m, n, threshold)


@kernel
def pair_band(  # type: ignore[no-untyped-def]  # noqa: C901 (one loop; its parts would take a dozen arrays each)
    ids, offsets, digests, band, ranked, first, parity, threshold, pattern, carries, left, right, scores
):
    """Pair the texts that agree in `band` and in no earlier band; return (entries of `ranked` done, pairs found).

    `ranked` (int64[n]): rows sorted by digest, ties by row number. Starts at entry `first`, and stops early when
    `left`, `right` and `scores` might be too short for the pairs of the next row.
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
        texts: texts with tokens numbered from the rarest.
        digests: uint64[n, bands], the bands of this part; 0 where another part owns the value.
        vocabulary: number of tokens.
        threshold: in (0, 1].
    """
    copies = Copies(texts)
    found = _distinct_pairs(copies.distinct, digests[copies.rows], vocabulary, threshold)
    return copies.add_to(found, threshold)


def _distinct_pairs(texts: Texts, digests: NDArray[np.uint64], vocabulary: int, threshold: float) -> Pairs:
    """Return the same as `band_pairs`, for texts of which no two have the same tokens."""
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
