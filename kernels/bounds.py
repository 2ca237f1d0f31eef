"""The bounds that both prefilters use, the pool of texts, and the final LCS check of candidates.

F > threshold implies bounds on lengths, on shared tokens and on parity signatures (the bitmap filter of Sandes,
Teodoro, de Melo, Information Systems 2020); README.md in this folder proves each. Candidates that pass the bounds are
decided by their LCS.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cache import inner, kernel
from .lcs import WORD, clear_pattern, need, prefetch, score_query, set_pattern

#: Length buckets: one each for lengths 1..32, then four per doubling, the last one without an upper limit.
BUCKETS = 64
EXACT_BUCKETS = 32
#: Queries up to this length read their plan from a table; for longer queries it is computed.
PLANNED = 128

# Modes of a join: judge texts, judge them and add those that are kept, or add all without judging.
JUDGE, JUDGE_AND_ADD, ADD = 0, 1, 2


class Pool(NamedTuple):
    """The texts of the index: row r is `ids[offsets[r]:offsets[r + 1]]`; the arrays have spare capacity."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]


class Plan(NamedTuple):
    """The bounds for a text of m tokens, m <= PLANNED.

    prefix: number of its rarest occurrences that a query reads, by bucket of the partner; int32[PLANNED + 1, BUCKETS].
    distance: maximum number of differing signature bits, same shape; -1 where no partner can pass.
    widest: maximum of `distance` over this and all lower buckets, same shape (`distance` itself is not monotonic).
    depth: number of its rarest occurrences that are (near, deep) postings; int32[PLANNED + 1, 2].
    """

    prefix: NDArray[np.int32]
    distance: NDArray[np.int32]
    widest: NDArray[np.int32]
    depth: NDArray[np.int32]


class Scratch(NamedTuple):
    """Working arrays of one query.

    pattern: uint64[vocabulary], zero between queries. carries: uint8[longest text]. seen: int64[rows], serial number
    of the last query that found the row. hits: int64[rows]. occurrences: int64[longest text]. serial: int64[1], number
    of queries so far, never reset while `seen` is in use.
    """

    pattern: NDArray[np.uint64]
    carries: NDArray[np.uint8]
    seen: NDArray[np.int64]
    hits: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    serial: NDArray[np.int64]


@inner
def bucket_of(n):  # type: ignore[no-untyped-def]
    """Return the bucket of length `n` >= 1."""
    if n <= EXACT_BUCKETS:
        return n - 1
    octave = 0
    while n >> octave > 2 * EXACT_BUCKETS - 1:
        octave += 1
    return min(BUCKETS - 1, EXACT_BUCKETS + 4 * octave + ((n >> octave) - EXACT_BUCKETS) // (EXACT_BUCKETS // 4))


@inner
def bucket_floor(bucket):  # type: ignore[no-untyped-def]
    """Return the smallest length in `bucket`."""
    if bucket < EXACT_BUCKETS:
        return bucket + 1
    octave, step = divmod(bucket - EXACT_BUCKETS, 4)
    return max(EXACT_BUCKETS + 1, (EXACT_BUCKETS + step * (EXACT_BUCKETS // 4)) << octave)


@inner
def shortest_partner(m, threshold):  # type: ignore[no-untyped-def]
    """Return the smallest length n that can pass with length `m`; m + 1 if no n up to m can. O(log m)."""
    low, high = 1, m + 1
    while low < high:
        n = (low + high) // 2
        if need(m, n, threshold) <= n:
            high = n
        else:
            low = n + 1
    return low


@inner
def plan_for(m, threshold, prefix, distance, widest):  # type: ignore[no-untyped-def]
    """Fill one row of a `Plan` (int32[BUCKETS] each) for queries of `m` tokens. O(buckets log m)."""
    shortest = shortest_partner(m, threshold)
    for bucket in range(BUCKETS):
        prefix[bucket], distance[bucket] = 0, -1
        widest[bucket] = widest[bucket - 1] if bucket > 0 else -1
        low = max(bucket_floor(bucket), shortest)
        if shortest > m or need(m, low, threshold) > min(m, low):
            continue
        high = bucket_floor(bucket + 1) - 1 if bucket < BUCKETS - 1 else np.int64(2 * m / threshold) + 1
        if high < low:
            continue
        least = need(m, low, threshold)
        prefix[bucket] = m - least + 1
        distance[bucket] = m + high - 2 * least
        widest[bucket] = max(widest[bucket], distance[bucket])


@inner
def depths_for(n, threshold):  # type: ignore[no-untyped-def]
    """Return how many of the rarest occurrences of a text of `n` tokens are (near, deep) postings.

    Queries of m >= n tokens need only the near postings, because need(m, n) >= need(n, n).
    """
    shortest = shortest_partner(n, threshold)
    if shortest > n:
        return 0, 0
    return n - need(n, n, threshold) + 1, n - need(shortest, n, threshold) + 1


@kernel
def fill_plan(threshold, plan):  # type: ignore[no-untyped-def]
    """Fill `plan` for `threshold` and all lengths up to PLANNED."""
    for m in range(1, PLANNED + 1):
        plan_for(m, threshold, plan.prefix[m], plan.distance[m], plan.widest[m])
        plan.depth[m, 0], plan.depth[m, 1] = depths_for(m, threshold)


@inner
def sort_occurrences(row, order, keys):  # type: ignore[no-untyped-def]
    """Fill `keys` (int64[m]) with `order << 32 | token` of the tokens of `row`, rarest first.

    Shell sort with gaps that shrink by 2.25 (an insertion sort for short texts): about O(m^1.3), no recursion.
    """
    m = row.size
    for i in range(m):
        keys[i] = (np.int64(order[row[i]]) << 32) | np.int64(row[i])
    gap = 1
    while gap * 9 // 4 + 1 < m // 4:
        gap = gap * 9 // 4 + 1
    while gap > 0:
        for i in range(gap, m):
            key = keys[i]
            k = i
            while k >= gap and keys[k - gap] > key:
                keys[k] = keys[k - gap]
                k -= gap
            keys[k] = key
        gap = 0 if gap == 1 else max(1, gap * 4 // 9)


@inner
def signature_of(keys):  # type: ignore[no-untyped-def]
    """Return the parity signature (uint64) of sorted occurrences: each (token, occurrence number) flips one bit."""
    signature = np.uint64(0)
    occurrence = np.uint64(0)
    for i in range(keys.size):
        occurrence = occurrence + np.uint64(1) if i > 0 and keys[i] == keys[i - 1] else np.uint64(0)
        token = np.uint64(keys[i] & 0xFFFFFFFF)
        mixed = (token + occurrence * np.uint64(0xD6E8FEB86659FD93) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        signature ^= np.uint64(1) << (mixed >> np.uint64(58))
    return signature


@inner
def best_of(row, hits, pool, scratch, threshold):  # type: ignore[no-untyped-def]
    """Return (row number, F) of the highest F > `threshold` among the pool rows `hits`, (-1, NaN) if there is none.

    Ties go to the lowest row number. One LCS per hit.
    """
    best, best_score = -1, np.nan
    m = row.size
    if hits.size and m <= WORD:
        set_pattern(row, scratch.pattern)
    for h in range(hits.size):
        prefetch(pool.ids, pool.offsets[hits[h]])
    for h in range(hits.size):
        other = hits[h]
        begin, end = pool.offsets[other], pool.offsets[other + 1]
        score = score_query(row, pool.ids, begin, end, scratch.pattern, scratch.carries)
        if score > threshold and (best < 0 or score > best_score or (score == best_score and other < best)):
            best, best_score = other, score
    if hits.size and m <= WORD:
        clear_pattern(row, scratch.pattern)
    return best, best_score


@inner
def append_text(row, pool, rows):  # type: ignore[no-untyped-def]
    """Append `row` (int32 tokens) to the pool, which holds `rows` texts."""
    end = pool.offsets[rows]
    for i in range(row.size):
        pool.ids[end + i] = row[i]
    pool.offsets[rows + 1] = end + row.size


@kernel
def join_all(ids, offsets, rows, mode, pool, scratch, threshold, kept, neighbor, score):  # type: ignore[no-untyped-def]
    """Judge and add a batch without a prefilter, with one LCS per pool text; return the new number of pool rows."""
    for p in range(scratch.hits.size):
        scratch.hits[p] = p
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        kept[r], neighbor[r], score[r] = True, -1, np.nan
        if row.size > 0 and mode != ADD:
            neighbor[r], score[r] = best_of(row, scratch.hits[:rows], pool, scratch, threshold)
            kept[r] = neighbor[r] < 0
        if mode != JUDGE and kept[r]:
            append_text(row, pool, rows)
            rows += 1
    return rows


@kernel
def judge_hits(row, count, pool, scratch, threshold):  # type: ignore[no-untyped-def]
    """Return `best_of` for the first `count` rows of `scratch.hits`, for candidates collected in Python."""
    return best_of(row, scratch.hits[:count], pool, scratch, threshold)
