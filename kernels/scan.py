"""Full scans: the ROUGE-L of queries against every text of a pool, on several threads.

They give the figures that do not allow pruning: the mean score over the pool and the nearest texts of the published
output.

The pool is inverted: for each token, the texts that hold it and the bit mask of its positions there. The bit-parallel
LCS (Hyyrö 2004) then runs with the *pool text* as the pattern and one 64-bit state per text. A query token updates only
the texts that hold it; it would not change the state of the others. So a pair costs one step per shared token, about
one and a half on instructions, instead of one step per token, plus one look-up for F. Kernels run without the GIL.
"""

# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cache import inner, kernel
from .lcs import WORD, clear_pattern, f_measure, popcount, score_query, set_pattern

#: Texts per block: their states (8 bytes each) stay in the L2 cache.
BLOCK = 1 << 15
#: Maximum number of texts at the end of a growing pool that are scored one by one before they are inverted.
_TAIL = 1 << 10
#: Up to this many nearest texts are selected in one pass, more by sorting.
_FEW = 64
#: Number of queries from which inverting even a short tail pays off.
_MANY = 8


class Block(NamedTuple):
    """Texts `first`..`last - 1` of a pool, inverted.

    starts: int64[vocabulary + 1]; entries `starts[t]`..`starts[t + 1] - 1` belong to token t.
    rows: int32[entries], row number minus `first`. masks: uint64[entries], bit i for position i.
    lengths: int32[last - first], in tokens.
    long_rows: int64[any], row numbers of the texts of more than 64 tokens, which have no entries.
    """

    first: int
    last: int
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    masks: NDArray[np.uint64]
    lengths: NDArray[np.int32]
    long_rows: NDArray[np.int64]


@kernel
def _count_entries(ids, offsets, first, last, starts):  # type: ignore[no-untyped-def]
    """Count the tokens of texts of up to 64 tokens: token t in starts[t + 1] (int64, zero before)."""
    for row in range(first, last):
        if offsets[row + 1] - offsets[row] <= WORD:
            for k in range(offsets[row], offsets[row + 1]):
                starts[ids[k] + 1] += 1


@kernel
def _enter(ids, offsets, first, last, ends, rows, masks):  # type: ignore[no-untyped-def]
    """Fill `rows` and `masks`; advance `ends` (int64[vocabulary]) from the start to the end of each token's entries.

    Two occurrences of the same token in a text share one entry with two bits; the spare entry stays free at the end.
    """
    for row in range(first, last):
        begin, end = offsets[row], offsets[row + 1]
        if end - begin > WORD:
            continue
        for k in range(begin, end):
            token = ids[k]
            at = ends[token]
            bit = np.uint64(1) << np.uint64(k - begin)
            seen_here = False
            for earlier in range(begin, k):
                seen_here |= ids[earlier] == token
            if seen_here:
                masks[at - 1] |= bit
            else:
                rows[at], masks[at] = row - first, bit
                ends[token] = at + 1


def invert(ids: NDArray[np.int32], offsets: NDArray[np.int64], first: int, last: int, vocabulary: int) -> Block:
    """Return texts `first`..`last - 1` as a `Block`. O(tokens + vocabulary)."""
    counts = np.zeros(vocabulary + 1, np.int64)
    _count_entries(ids, offsets, first, last, counts)
    starts = np.cumsum(counts)
    rows, masks = np.full(starts[-1], -1, np.int32), np.zeros(starts[-1], np.uint64)
    _enter(ids, offsets, first, last, starts[:-1].copy(), rows, masks)
    lengths = np.diff(offsets[first : last + 1])
    return Block(first, last, starts, rows, masks, lengths.astype(np.int32), first + np.flatnonzero(lengths > WORD))


class Work(NamedTuple):
    """Working arrays of one thread: states uint64[BLOCK], table float64[65, 65]; pattern, carries as in the index."""

    states: NDArray[np.uint64]
    table: NDArray[np.float64]
    pattern: NDArray[np.uint64]
    carries: NDArray[np.uint8]


@inner
def _advance(query, block, count, states):  # type: ignore[no-untyped-def]
    """Advance the LCS states of the block's first `count` texts by `query`: one step per shared token."""
    limit = np.uint64(count)
    for k in range(query.size):
        token = query[k]
        if token + 1 >= block.starts.size:
            continue  # the token is newer than the block
        start, stop = block.starts[token], block.starts[token + 1]
        rows, masks = block.rows[start:stop], block.masks[start:stop]
        for e in range(rows.size):
            row = np.uint64(rows[e])
            if row >= limit:
                break  # rows ascend; free entries at the end of a list are -1, the largest uint64
            matches = states[row] & masks[e]
            states[row] = (states[row] + matches) | (states[row] - matches)


@inner
def _tabulate(m, table):  # type: ignore[no-untyped-def]
    """Fill `table[n, lcs]` with F of a query of `m` tokens and a text of n tokens, for n up to 64."""
    for n in range(1, WORD + 1):
        for lcs in range(1, min(m, n) + 1):
            table[n, lcs] = f_measure(lcs, m, n)


@kernel
def _scan_block(ids, offsets, first, last, pool_ids, pool_offsets, block, work, out):  # type: ignore[no-untyped-def]
    """Fill `out[r, p]` (float64) with F of query r in `first`..`last - 1` and each text p of `block`."""
    states, table, lengths = work.states, work.table, block.lengths
    for r in range(first, last):
        query = ids[offsets[r] : offsets[r + 1]]
        m = query.size
        _tabulate(m, table)
        for p in range(lengths.size):
            states[p] = ~np.uint64(0)
        _advance(query, block, lengths.size, states)
        scores = out[r, block.first : block.last]
        for p in range(lengths.size):
            scores[p] = table[min(lengths[p], WORD), popcount(~states[p])]
        for i in range(block.long_rows.size):
            p = block.long_rows[i]
            if m <= WORD:
                set_pattern(query, work.pattern)
            out[r, p] = score_query(query, pool_ids, pool_offsets[p], pool_offsets[p + 1], work.pattern, work.carries)
            if m <= WORD:
                clear_pattern(query, work.pattern)


@inner
def _nearest_of_long(query, row, pool_ids, pool_offsets, block, work, nearest, best):  # type: ignore[no-untyped-def]
    """Return (nearest, best) updated by the block's texts of more than 64 tokens before `row`, which have no states."""
    if query.size <= WORD:
        set_pattern(query, work.pattern)
    for i in range(block.long_rows.size):
        p = block.long_rows[i]
        if p >= row:
            break
        score = score_query(query, pool_ids, pool_offsets[p], pool_offsets[p + 1], work.pattern, work.carries)
        if score > best or (score == best and p < nearest):
            nearest, best = p, score
    if query.size <= WORD:
        clear_pattern(query, work.pattern)
    return nearest, best


@kernel
def _nearest_in_block(rows, pool_ids, pool_offsets, block, work, nearest, best):  # type: ignore[no-untyped-def]
    """Update `nearest[r]` (int64) and `best[r]` (float64) by the text of `block` before row `rows[r]` of largest F.

    Ties keep the lowest position, so blocks must be passed in their order.
    """
    states, table, lengths = work.states, work.table, block.lengths
    for r in range(rows.size):
        count = min(rows[r] - block.first, lengths.size)
        if count <= 0:
            continue
        query = pool_ids[pool_offsets[rows[r]] : pool_offsets[rows[r] + 1]]
        m = query.size
        _tabulate(m, table)
        for p in range(count):
            states[p] = ~np.uint64(0)
        _advance(query, block, count, states)
        for p in range(count):
            score = table[min(lengths[p], WORD), popcount(~states[p])]
            if score > best[r]:
                nearest[r], best[r] = block.first + p, score
        if block.long_rows.size and block.long_rows[0] < rows[r]:
            found = _nearest_of_long(query, rows[r], pool_ids, pool_offsets, block, work, nearest[r], best[r])
            nearest[r], best[r] = found


@kernel
def _scan_rows(ids, offsets, first, last, pool_ids, pool_offsets, first_row, rows, work, out):  # type: ignore[no-untyped-def]
    """Fill `out[r, p]` with F of query r in `first`..`last - 1` and text p in `first_row`..`rows - 1`, one by one."""
    for r in range(first, last):
        query = ids[offsets[r] : offsets[r + 1]]
        if query.size <= WORD:
            set_pattern(query, work.pattern)
        for p in range(first_row, rows):
            out[r, p] = score_query(query, pool_ids, pool_offsets[p], pool_offsets[p + 1], work.pattern, work.carries)
        if query.size <= WORD:
            clear_pattern(query, work.pattern)


@kernel
def _top(scores, positions, best):  # type: ignore[no-untyped-def]
    """Fill `positions` and `best` with the k largest `scores`, largest first, ties by position. For small k."""
    k = positions.size
    count = 0
    for p in range(scores.size):
        if count == k and scores[p] <= best[k - 1]:
            continue
        at = count if count < k else k - 1
        while at > 0 and best[at - 1] < scores[p]:
            positions[at], best[at] = positions[at - 1], best[at - 1]
            at -= 1
        positions[at], best[at] = p, scores[p]
        count = min(k, count + 1)


def top(scores: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (positions, scores) of the `k` largest scores, largest first, ties by position."""
    k = min(k, scores.size)
    if k > _FEW:
        positions = np.argsort(-scores, kind="stable")[:k]
        return positions, scores[positions]
    positions, best = np.empty(k, np.int64), np.empty(k, np.float64)
    if k:
        _top(scores, positions, best)
    return positions, best


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Scanner:
    """A pool prepared for full scans; it may grow at its end between scans.

    Args:
        threads: number of threads of a scan of several queries; all processors of this process if None.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            message = f"threads must be at least 1, not {threads}"
            raise ValueError(message)
        self._threads = default_threads() if threads is None else threads
        self._blocks: list[Block] = []
        self._longest = 0
        self._work: list[Work] = []

    def _follow(self, ids: NDArray[np.int32], offsets: NDArray[np.int64], rows: int, vocabulary: int, tail: int) -> int:
        """Invert the texts added since the last call, if more than `tail`; return how many rows the blocks cover."""
        covered = self._blocks[-1].last if self._blocks else 0
        if rows - covered > tail:
            self._longest = max(self._longest, int(np.diff(offsets[covered : rows + 1]).max()))
            if self._blocks and self._blocks[-1].last - self._blocks[-1].first < BLOCK:
                covered = self._blocks.pop().first
            while covered < rows:
                last = min(covered + BLOCK, rows)
                self._blocks.append(invert(ids, offsets, covered, last, vocabulary))
                covered = last
        return covered

    def _workspace(self, workers: int, vocabulary: int, longest: int) -> list[Work]:
        """Return one `Work` for each of `workers` threads, reused from scan to scan while it is large enough."""
        if len(self._work) < workers or self._work[0].pattern.size < vocabulary or self._work[0].carries.size < longest:
            self._work = [
                Work(
                    np.empty(BLOCK, np.uint64), np.zeros((WORD + 1, WORD + 1)),
                    np.zeros(2 * vocabulary, np.uint64), np.zeros(2 * longest, np.uint8),
                )
                for _ in range(workers)
            ]  # fmt: skip
        return self._work

    def scan(
        self,
        queries: tuple[NDArray[np.int32], NDArray[np.int64]],
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        rows: int,
        vocabulary: int,
    ) -> NDArray[np.float64]:
        """Return F of every query with every text of the pool, float64[queries, rows].

        Args:
            queries: ids (int32) and offsets (int64[queries + 1]), as in `Encoded`.
            ids: token ids of the pool, int32.
            offsets: offsets of the pool, int64[rows + 1 or more]; texts of earlier calls must be unchanged.
            rows: number of texts in the pool.
            vocabulary: number of tokens.
        """
        count = queries[1].size - 1
        out = np.empty((count, rows), np.float64)
        if not out.size:
            return out
        covered = self._follow(ids, offsets, rows, vocabulary, _TAIL if count < _MANY else 0)
        longest = max(self._longest, int(np.diff(offsets[covered : rows + 1]).max(initial=1)))
        workers = min(self._threads, count)

        def work_on(first: int, last: int, work: Work) -> None:
            for block in self._blocks:
                _scan_block(*queries, first, last, ids, offsets, block, work, out)
            if covered < rows:
                _scan_rows(*queries, first, last, ids, offsets, covered, rows, work, out)

        spaces = self._workspace(workers, vocabulary, longest)
        if workers == 1:
            work_on(0, count, spaces[0])
            return out
        bounds = [count * i // workers for i in range(workers + 1)]
        with ThreadPoolExecutor(workers) as executor:
            for done in [executor.submit(work_on, bounds[i], bounds[i + 1], spaces[i]) for i in range(workers)]:
                done.result()
        return out

    def nearest_before(
        self,
        rows: NDArray[np.int64],
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        size: int,
        vocabulary: int,
        threads: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return for texts of the pool the nearest of those before each, ties to the lowest position: (positions, F).

        -1 and NaN for the first text. Texts after a text are not scored, and no row of scores is stored.

        Args:
            rows: positions of the texts, int64.
            ids: token ids of the pool, int32.
            offsets: offsets of the pool, int64[size + 1 or more]; texts of earlier calls must be unchanged.
            size: number of texts in the pool.
            vocabulary: number of tokens.
            threads: number of threads of this scan; all processors of this process if None.
        """
        nearest, best = np.full(rows.size, -1, np.int64), np.full(rows.size, -1.0)
        if rows.size:
            self._follow(ids, offsets, size, vocabulary, tail=0)
            workers = min(default_threads() if threads is None else threads, rows.size)
            spaces = self._workspace(workers, vocabulary, max(self._longest, 1))

            def work_on(worker: int) -> None:
                share = slice(worker, None, workers)  # later rows cost more, so they are interleaved
                mine, found, scores = rows[share].copy(), nearest[share].copy(), best[share].copy()
                for block in self._blocks:
                    _nearest_in_block(mine, ids, offsets, block, spaces[worker], found, scores)
                nearest[share], best[share] = found, scores

            with ThreadPoolExecutor(workers) as executor:
                list(executor.map(work_on, range(workers)))
        best[nearest < 0] = np.nan
        return nearest, best
