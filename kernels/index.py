"""The pool and its four prefilters, which hold the arrays, grow them and call the kernels.

Each prefilter has the same two methods: `prepare` before a batch (capacity, token order) and `join` for the batch. Only
`PrefixIndex` and `BandIndex` are fast; `NoIndex` scores every pair, and `SharedIndex` keeps its bands in a storage of
datasketch.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import bounds, minhash, prefix
from .tokenize import Encoded


class FilterResult(NamedTuple):
    """The result of `filter` or `check` for n texts.

    kept: bool[n]. neighbor: int64[n], for a rejected text the index position with its highest score, ties to the lowest
    position; -1 for a kept text. score: float64[n], that score; NaN for a kept text.
    """

    kept: NDArray[np.bool_]
    neighbor: NDArray[np.int64]
    score: NDArray[np.float64]


def no_result(n: int) -> FilterResult:
    """Return an uninitialised result for `n` texts; the kernels fill it."""
    return FilterResult(np.empty(n, np.bool_), np.empty(n, np.int64), np.empty(n, np.float64))


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `array`, or a copy at least twice as long if it has fewer than `size` rows; new rows are zero."""
    if size <= array.shape[0]:
        return array
    longer = np.zeros((max(size, 2 * array.shape[0]), *array.shape[1:]), array.dtype)
    longer[: array.shape[0]] = array
    return longer


def make_plan(threshold: float) -> bounds.Plan:
    """Return the plan for a threshold and all lengths up to `bounds.PLANNED`."""
    prefix_, distance, widest = np.zeros((3, bounds.PLANNED + 1, bounds.BUCKETS), np.int32)
    plan = bounds.Plan(prefix_, distance, widest, np.zeros((bounds.PLANNED + 1, 2), np.int32))
    bounds.fill_plan(threshold, plan)
    return plan


class State:
    """The pool, the plan for a threshold, and the working arrays that all prefilters use."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rows = 0
        self.vocabulary = 0
        self.pool = bounds.Pool(np.zeros(1 << 12, np.int32), np.zeros(1 << 8, np.int64))
        self.plan = make_plan(threshold)
        self.scratch = bounds.Scratch(
            np.zeros(1 << 10, np.uint64), np.zeros(1 << 7, np.uint8), np.zeros(1 << 8, np.int64),
            np.zeros(1 << 8, np.int64), np.zeros(1 << 7, np.int64), np.zeros(1, np.int64),
        )  # fmt: skip

    @property
    def longest(self) -> int:
        """Length in tokens of the longest text that the arrays can hold."""
        return self.scratch.occurrences.size

    def make_room(self, batch: Encoded, *, adding: bool) -> None:
        """Grow the arrays to hold `batch`, those of the pool only if `adding`."""
        rows = self.rows + (len(batch) if adding else 0)
        longest = min(batch.ids.size, self.longest)
        if batch.ids.size > self.longest:
            longest = int(batch.lengths.max())
        self.vocabulary = len(batch.vocabulary)
        pattern, carries, seen, hits, occurrences, serial = self.scratch
        if max(rows - seen.size, longest - carries.size, self.vocabulary - pattern.size) > 0:
            self.scratch = bounds.Scratch(
                grown(pattern, self.vocabulary), grown(carries, longest), grown(seen, rows), grown(hits, rows),
                grown(occurrences, longest), serial,
            )  # fmt: skip
        if adding:
            used = int(self.pool.offsets[self.rows])
            ids, offsets = grown(self.pool.ids, used + batch.ids.size), grown(self.pool.offsets, rows + 1)
            if ids is not self.pool.ids or offsets is not self.pool.offsets:
                self.pool = bounds.Pool(ids, offsets)

    def texts(self, batch: Encoded) -> Encoded:
        """Return a copy of the pool as encoded texts, with the vocabulary of `batch`."""
        offsets = self.pool.offsets[: self.rows + 1].copy()
        return Encoded(self.pool.ids[: offsets[-1]].copy(), offsets, batch.vocabulary)


class Prefilter(Protocol):
    """The interface of a prefilter."""

    def prepare(self, state: State, batch: Encoded, *, adding: bool) -> None:
        """Prepare for `batch`; call `State.make_room` first."""

    def join(self, state: State, batch: Encoded, mode: int) -> FilterResult:
        """Return the result for `batch`, judged and added by `mode`: JUDGE, JUDGE_AND_ADD or ADD of `bounds`."""


class NoIndex:
    """Scores every pair."""

    def prepare(self, state: State, batch: Encoded, *, adding: bool) -> None:
        """Do nothing: every pair is scored."""

    def join(self, state: State, batch: Encoded, mode: int) -> FilterResult:
        """Return the result for `batch`, as `Prefilter.join`."""
        result = no_result(len(batch))
        state.rows = bounds.join_all(
            batch.ids, batch.offsets, state.rows, mode, state.pool, state.scratch, state.threshold, *result
        )
        return result


class GrowingPostings:
    """The postings of `prefix`, in arrays that double when the kernels run out of room.

    Attributes:
        arrays: the arrays that the kernels read and write.
        counters: their scalars, int64[COUNTERS].
    """

    def __init__(self, tokens: int, entries: int) -> None:
        self.arrays = prefix.Postings(
            np.zeros((tokens, 4), np.int32),
            np.zeros((16 * prefix.GROUPS, 4), np.int32),
            np.zeros((entries, 2), np.uint64),
        )
        self.counters = np.zeros(prefix.COUNTERS, np.int64)

    def cover(self, tokens: int) -> None:
        """Make room for the lists of `tokens` tokens."""
        self.arrays = self.arrays._replace(lists=grown(self.arrays.lists, tokens))

    def grow(self) -> None:
        """Double the arena or the blocks of groups, depending on which of them the kernel found too small.

        Raises:
            MemoryError: at more than 2**31 postings, the limit of the int32 columns.
        """
        if self.counters[prefix.SHORT] == prefix.SHORT_OF_BLOCKS:
            self.arrays = self.arrays._replace(groups=grown(self.arrays.groups, self.arrays.groups.shape[0] + 1))
            return
        if 2 * self.arrays.entries.shape[0] > 1 << 31:
            message = "the prefix index is full (2**31 postings): split the pool, or use prefilter='minhash'"
            raise MemoryError(message)
        self.arrays = self.arrays._replace(entries=grown(self.arrays.entries, self.arrays.entries.shape[0] + 1))


class PrefixIndex:
    """The exact prefix index (see `prefix`)."""

    def __init__(self) -> None:
        self._order = np.zeros(1 << 10, np.int32)
        self._ordered = 0  # tokens that have a place in the order
        self._sorted_rows = 0  # texts counted when the order was last sorted
        self._reads = np.zeros((1 << 10, 4), np.int64)
        self._postings = GrowingPostings(self._order.size, 1 << 12)

    def prepare(self, state: State, batch: Encoded, *, adding: bool) -> None:
        """Give every token a place in the order: re-sort it when the pool doubles, else add tokens at the rare end."""
        tokens = state.vocabulary
        if tokens > self._order.size:
            self._order = grown(self._order, tokens)
            self._postings.cover(self._order.size)
        # A query of m tokens reads at most m lists, or GROUPS groups of each.
        self._reads = grown(self._reads, prefix.GROUPS * state.longest)
        if adding and state.rows + len(batch) > 2 * self._sorted_rows + 1000:
            self._sort(state, batch)
        if self._ordered < tokens:
            self._order[self._ordered : tokens] = -np.arange(self._ordered + 1, tokens + 1)
            self._ordered = tokens

    def _sort(self, state: State, batch: Encoded) -> None:
        """Sort the tokens by their frequency in pool and batch, and re-index the pool."""
        texts = state.texts(batch)
        counts = np.bincount(texts.ids, minlength=state.vocabulary) + np.bincount(batch.ids, minlength=state.vocabulary)
        self._order[np.argsort(counts, kind="stable")] = np.arange(counts.size, dtype=np.int32)
        self._ordered = counts.size
        self._sorted_rows = len(texts) + len(batch)
        lengths = np.concatenate([texts.lengths, batch.lengths])
        postings = int(state.plan.depth[np.minimum(lengths, bounds.PLANNED), 1].sum())
        room = max(1 << 12, self._postings.arrays.entries.shape[0], 3 * postings)
        self._postings = GrowingPostings(self._order.size, room)
        state.rows = 0
        self.join(state, texts, bounds.ADD)

    def join(self, state: State, batch: Encoded, mode: int) -> FilterResult:
        """Return the result for `batch`, as `Prefilter.join`; grows the postings when the kernel runs out of room."""
        result = no_result(len(batch))
        done = 0
        while True:
            done, state.rows = prefix.join_rows(
                batch.ids, batch.offsets, done, state.rows, mode, state.pool, self._order, state.plan,
                self._postings.arrays, state.scratch, self._reads, self._postings.counters, state.threshold, *result,
            )  # fmt: skip
            if done == len(batch):
                return result
            self._postings.grow()


class BandIndex:
    """MinHash bands in a compiled hash table (see `minhash`)."""

    def __init__(self, threshold: float, recall: float, seed: int) -> None:
        self._settings = (threshold, recall, seed)
        self._room = 0
        self._order = np.zeros(0, np.int32)  # occurrences can be counted in any order

    def prepare(self, state: State, batch: Encoded, *, adding: bool) -> None:
        """Grow the table if needed, with bands chosen for a pool of its new capacity."""
        self._order = grown(self._order, state.vocabulary)
        rows = state.rows + (len(batch) if adding else 0)
        if self._room and rows <= self._room:
            return
        self._room = max(rows, 1 << 10, 2 * state.rows)
        threshold, recall, seed = self._settings
        self.bands = minhash.choose_bands(threshold, recall, self._room)
        self._permutations = minhash.permutations(self.bands.bands * self.bands.rows, seed)
        self._table = minhash.band_table(self._room, self.bands)
        texts, state.rows = state.texts(batch), 0
        self.join(state, texts, bounds.ADD)

    def join(self, state: State, batch: Encoded, mode: int) -> FilterResult:
        """Return the result for `batch`, as `Prefilter.join`."""
        result = no_result(len(batch))
        state.rows = minhash.join_bands(
            batch.ids, batch.offsets, state.rows, mode, state.pool, self._order, state.plan, batch.vocabulary.hashes,
            self._permutations, self._table, state.scratch, state.threshold, *result,
        )  # fmt: skip
        return result

    def candidates(self, state: State, batch: Encoded) -> NDArray[np.bool_]:
        """Return which rows of the pool share a band with each text, bool[texts, rows]."""
        marked = np.zeros((len(batch), state.rows), np.bool_)
        minhash.mark_candidates(
            batch.ids, batch.offsets, state.pool, self._order, state.plan, batch.vocabulary.hashes, self._permutations,
            self._table, state.scratch, state.threshold, marked,
        )  # fmt: skip
        return marked


class SharedIndex:
    """MinHash bands in datasketch's `MinHashLSH`, for its storages; one Python step per text and band.

    The bands are chosen for `expected` texts, because those of a storage cannot be changed later. Keys are row numbers.
    """

    def __init__(
        self, threshold: float, recall: float, seed: int, storage: dict[str, Any], expected: int = 100_000
    ) -> None:
        self.bands = minhash.choose_bands(threshold, recall, expected)
        self._seed = seed
        self._lsh = minhash.datasketch_lsh(self.bands, storage)

    def prepare(self, state: State, batch: Encoded, *, adding: bool) -> None:
        """Do nothing: the storage needs no preparation."""

    def _query(self, signature: minhash.Signature, state: State) -> NDArray[np.int64]:
        rows = np.fromiter(self._lsh.query(signature), np.int64)
        return np.sort(rows[rows < state.rows])

    def join(self, state: State, batch: Encoded, mode: int) -> FilterResult:
        """Return the result for `batch`, as `Prefilter.join`."""
        result = no_result(len(batch))
        for r, values in enumerate(minhash.signatures(batch, self.bands, self._seed)):
            row = batch.ids[batch.offsets[r] : batch.offsets[r + 1]]
            signature = minhash.Signature(values)
            result.kept[r], result.neighbor[r], result.score[r] = True, -1, np.nan
            if row.size and mode != bounds.ADD:
                hits = self._query(signature, state)
                state.scratch.hits[: hits.size] = hits
                best = bounds.judge_hits(row, hits.size, state.pool, state.scratch, state.threshold)
                result.neighbor[r], result.score[r] = best
                result.kept[r] = best[0] < 0
            if mode != bounds.JUDGE and result.kept[r]:
                if row.size:
                    self._lsh.insert(state.rows, signature)
                end = state.pool.offsets[state.rows]
                state.pool.ids[end : end + row.size] = row
                state.pool.offsets[state.rows + 1] = end + row.size
                state.rows += 1
        return result

    def candidates(self, state: State, batch: Encoded) -> NDArray[np.bool_]:
        """Return which rows of the pool share a band with each text, bool[texts, rows]."""
        marked = np.zeros((len(batch), state.rows), np.bool_)
        for r, values in enumerate(minhash.signatures(batch, self.bands, self._seed)):
            if batch.offsets[r] < batch.offsets[r + 1]:
                marked[r, self._query(minhash.Signature(values), state)] = True
        return marked
