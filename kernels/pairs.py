"""All pairs of near texts, found in parts: a set-similarity join that can be distributed over many machines.

After R. Vernica, M. Carey, C. Li, "Efficient parallel set-similarity joins using MapReduce", SIGMOD 2010: each text
goes to the parts that own one of its rarest tokens (`route`), and each part joins its texts with the prefix index
(`near_pairs`). Two texts above the threshold share one of their rarest tokens (see `prefix`), so the part that owns the
first such token has both texts; only that part reports the pair. `bands` does the same with MinHash.

Tokens are numbered from the rarest, with one numbering for all parts: the number of each token is its place in the
order.

Texts with the same tokens are near the same other texts, so all but the first of them are paired only with the first.
Otherwise the number of pairs would grow with the square of the number of copies.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import prefix
from .bounds import BUCKETS, PLANNED, Pool, Scratch, bucket_of, depths_for, signature_of, sort_occurrences
from .cache import inner, kernel
from .index import GrowingPostings, make_plan
from .lcs import WORD, clear_pattern, score_query, set_pattern


class Texts(NamedTuple):
    """Tokenised texts: row i is `ids[offsets[i]:offsets[i + 1]]`, with tokens numbered from the rarest.

    ids: int32[total tokens]. offsets: int64[n + 1].
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of rows with F above the threshold.

    left, right: int64[pairs], row numbers, left < right. score: float64[pairs].
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    score: NDArray[np.float64]


@inner
def first_shared(occurrences, others):  # type: ignore[no-untyped-def]
    """Return the rarest token that two sorted rows of occurrences share; they must share one."""
    i, j = 0, 0
    while occurrences[i] != others[j]:
        if occurrences[i] < others[j]:
            i += 1
        else:
            j += 1
    return occurrences[i] & 0xFFFFFFFF


@inner
def depths(m, threshold, plan):  # type: ignore[no-untyped-def]
    """Return (near, deep), as `bounds.depths_for`, from the table for up to PLANNED tokens; (0, 0) for `m` = 0."""
    if m == 0:
        return 0, 0
    if m <= PLANNED:
        return plan.depth[m, 0], plan.depth[m, 1]
    return depths_for(m, threshold)


@kernel
def route_rows(ids, offsets, order, plan, threshold, part_of, occurrences, rows, parts):  # type: ignore[no-untyped-def]
    """Fill `rows` and `parts` (int64[ids.size]) with each text and each part that needs it; return how many.

    `part_of` (int32[vocabulary]): the part of each token. `occurrences` (int64[longest text]): scratch.
    """
    count = 0
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        _, deep = depths(row.size, threshold, plan)
        sort_occurrences(row, order, occurrences[: row.size])
        first = count
        for i in range(deep):
            part = part_of[occurrences[i] & 0xFFFFFFFF]
            known = False
            for k in range(first, count):
                known = known or parts[k] == part
            if not known:
                rows[count], parts[count] = r, part
                count += 1
    return count


def route(texts: Texts, threshold: float, part_of: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the parts that need each text, as pairs (row, part): two int64 arrays, rows ascending.

    A text without tokens, or too short to be near any other, goes to no part.

    Args:
        texts: texts with tokens numbered from the rarest.
        threshold: in (0, 1].
        part_of: int32[vocabulary], the part that owns each token.
    """
    rows, parts = np.empty((2, texts.ids.size), np.int64)
    order = np.arange(part_of.size, dtype=np.int32)
    longest = int(np.diff(texts.offsets).max(initial=1))
    occurrences = np.empty(longest, np.int64)
    plan = make_plan(threshold)
    count = route_rows(texts.ids, texts.offsets, order, plan, threshold, part_of, occurrences, rows, parts)
    return rows[:count], parts[:count]


@kernel
def take_rows(ids, offsets, rows, taken, ends):  # type: ignore[no-untyped-def]
    """Copy the texts `rows` to `taken` (int32) and their end positions to `ends` (int64[rows + 1], first 0)."""
    end = 0
    for k in range(rows.size):
        for i in range(offsets[rows[k]], offsets[rows[k] + 1]):
            taken[end] = ids[i]
            end += 1
        ends[k + 1] = end


def take(texts: Texts, rows: NDArray[np.int64]) -> Texts:
    """Return the texts `rows`, in the order given."""
    taken = np.empty(int((texts.offsets[rows + 1] - texts.offsets[rows]).sum()), np.int32)
    ends = np.zeros(rows.size + 1, np.int64)
    take_rows(texts.ids, texts.offsets, rows, taken, ends)
    return Texts(taken, ends)


@kernel
def find_copies(ids, offsets, slots, first):  # type: ignore[no-untyped-def]
    """Fill `first` (int64[n]) with the first row that has the same tokens as each row.

    `slots` (int64[a power of two, at least 2 n]): an open-addressing hash table, zero before. The tokens themselves are
    compared, so no hash collision can merge two texts.
    """
    mask = np.uint64(slots.size - 1)
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        digest = np.uint64(row.size)
        for token in row:
            digest = (digest ^ np.uint64(token)) * np.uint64(0xFF51AFD7ED558CCD)
            digest ^= digest >> np.uint64(32)
        slot = np.int64(digest & mask)
        while slots[slot] > 0 and not same_tokens(row, ids, offsets, slots[slot] - 1):
            slot = np.int64(np.uint64(slot + 1) & mask)
        if slots[slot] == 0:
            slots[slot] = r + 1
        first[r] = slots[slot] - 1


@inner
def same_tokens(row, ids, offsets, other):  # type: ignore[no-untyped-def]
    """Return whether the text `other` has the tokens `row`."""
    start = offsets[other]
    if offsets[other + 1] - start != row.size:
        return False
    for i in range(row.size):  # noqa: SIM110 (no generator expressions in kernels)
        if ids[start + i] != row[i]:
            return False
    return True


class Copies:
    """The distinct texts, and the copies of each: texts with the same tokens.

    Attributes:
        rows: row numbers of the distinct texts (the first of each group of copies), int64, ascending.
        distinct: the distinct texts.
    """

    def __init__(self, texts: Texts) -> None:
        count = texts.offsets.size - 1
        self._texts = texts
        self._first = np.empty(count, np.int64)
        find_copies(*texts, np.zeros(1 << (2 * count + 1).bit_length(), np.int64), self._first)
        self.rows = np.flatnonzero(self._first == np.arange(count))
        self.distinct = take(texts, self.rows)

    def add_to(self, pairs: Pairs, threshold: float, owned: NDArray[np.bool_] | None = None) -> Pairs:
        """Return `pairs` with row numbers of all texts, plus a pair of each copy and the first text of its group.

        Args:
            pairs: pairs of the distinct texts, with their row numbers in `distinct`.
            threshold: at 1 or more no copies are paired, because no score is above 1.
            owned: bool[vocabulary]; copies are paired only if their rarest token is owned. None pairs all copies.
        """
        found = Pairs(self.rows[pairs.left], self.rows[pairs.right], pairs.score)
        texts, first = self._texts, self._first
        copies = np.flatnonzero((first != np.arange(first.size)) & (np.diff(texts.offsets) > 0))
        if threshold >= 1:
            copies = copies[:0]
        if copies.size and owned is not None:
            tokens = take(texts, copies)
            copies = copies[owned[np.minimum.reduceat(tokens.ids, tokens.offsets[:-1])]]
        return join([found, Pairs(first[copies], copies, np.ones(copies.size))])


@inner
def passing_hits(row, found, pool, scratch, threshold, values):  # type: ignore[no-untyped-def]
    """Keep in `scratch.hits` those of its `found` rows that are near `row`, with F in `values`; return how many."""
    passed = 0
    if row.size <= WORD:
        set_pattern(row, scratch.pattern)
    for h in range(found):
        other = scratch.hits[h]
        begin, end = pool.offsets[other], pool.offsets[other + 1]
        score = score_query(row, pool.ids, begin, end, scratch.pattern, scratch.carries)
        if score > threshold:
            scratch.hits[passed], values[passed] = other, score
            passed += 1
    if row.size <= WORD:
        clear_pattern(row, scratch.pattern)
    return passed


@inner
def count_owned(occurrences, deep, owned):  # type: ignore[no-untyped-def]
    """Return how many postings `insert_owned` adds for the text."""
    count = 0
    for i in range(deep):
        if owned[occurrences[i] & 0xFFFFFFFF] and (i == 0 or occurrences[i] != occurrences[i - 1]):
            count += 1
    return count


@inner
def insert_owned(row_number, occurrences, near, deep, owned, postings, counters):  # type: ignore[no-untyped-def]
    """Add the postings of one text for its owned tokens, as `prefix.insert` does for all tokens."""
    signature, bucket = signature_of(occurrences), bucket_of(occurrences.size)
    for i in range(deep):
        token = occurrences[i] & 0xFFFFFFFF
        if owned[token] and (i == 0 or occurrences[i] != occurrences[i - 1]):
            group = bucket if i < near else bucket + BUCKETS
            prefix.post(token, signature, row_number, group, postings, counters)


@kernel
def pair_rows(  # type: ignore[no-untyped-def]
    ids, offsets, first, owned, order, plan, postings, pool, scratch, reads, counters, threshold, others, values,
    left, right, scores,
):  # fmt: skip
    """Join the rows from `first` on with the rows before them; return (rows done, pairs found).

    `owned` (bool[vocabulary]): tokens that have postings in this part. `pool`: the rows themselves. `others`
    (int64[longest]) and `values` (float64[n]): scratch. Stops early when the room for postings or pairs might be too
    small; the caller then grows it.
    """
    count = 0
    for r in range(first, offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        near, deep = depths(row.size, threshold, plan)
        if deep == 0:
            continue
        occurrences = scratch.occurrences[: row.size]
        sort_occurrences(row, order, occurrences)
        if not prefix.has_room(count_owned(occurrences, deep, owned), postings, counters):
            return r, count
        found = prefix.candidates(occurrences, plan, threshold, postings, scratch, reads, pool)
        if count + found > left.size:
            return r, count
        for h in range(passing_hits(row, found, pool, scratch, threshold, values)):
            other = scratch.hits[h]
            sort_occurrences(ids[offsets[other] : offsets[other + 1]], order, others)
            if owned[first_shared(occurrences, others)]:
                left[count], right[count], scores[count] = other, r, values[h]
                count += 1
        insert_owned(r, occurrences, near, deep, owned, postings, counters)
    return offsets.size - 1, count


def near_pairs(texts: Texts, threshold: float, owned: NDArray[np.bool_]) -> Pairs:
    """Return every pair of `texts` above `threshold` whose rarest shared token is owned, each once.

    All but the first of the texts with the same tokens are paired only with the first. If every token is owned, the
    result has all pairs.

    Args:
        texts: at least the texts that `route` sends to a part, in the order in which they are to be decided.
        threshold: in (0, 1].
        owned: bool[vocabulary], the tokens of the part.

    Raises:
        MemoryError: if the part needs more than 2**31 postings.
    """
    copies = Copies(texts)
    found = _distinct_pairs(copies.distinct, threshold, owned)
    return copies.add_to(found, threshold, owned)


def _distinct_pairs(texts: Texts, threshold: float, owned: NDArray[np.bool_]) -> Pairs:
    """Return the same as `near_pairs`, for texts of which no two have the same tokens."""
    count, longest = texts.offsets.size - 1, int(np.diff(texts.offsets).max(initial=1))
    order = np.arange(owned.size, dtype=np.int32)
    plan = make_plan(threshold)
    scratch = Scratch(
        np.zeros(owned.size, np.uint64), np.zeros(longest, np.uint8), np.zeros(count, np.int64),
        np.zeros(count, np.int64), np.zeros(longest, np.int64), np.zeros(1, np.int64),
    )  # fmt: skip
    reads = np.zeros((prefix.GROUPS * longest, 4), np.int64)
    others, values = np.empty(longest, np.int64), np.empty(count)
    postings = GrowingPostings(owned.size, max(1 << 12, 4 * count))
    left, right = np.empty((2, count + 1), np.int64)
    scores = np.empty(count + 1)
    found: list[Pairs] = []
    done = 0
    while done < count:
        done, pairs = pair_rows(
            *texts, done, owned, order, plan, postings.arrays, Pool(*texts), scratch, reads, postings.counters,
            threshold, others, values, left, right, scores,
        )  # fmt: skip
        found.append(Pairs(left[:pairs].copy(), right[:pairs].copy(), scores[:pairs].copy()))
        if done < count and postings.counters[prefix.SHORT]:
            postings.grow()
    return join(found)


def join(parts: list[Pairs]) -> Pairs:
    """Return the pairs of all parts, concatenated."""
    left, right = (np.concatenate([np.empty(0, np.int64), *(part[side] for part in parts)]) for side in range(2))
    return Pairs(left, right, np.concatenate([np.empty(0), *(part.score for part in parts)]))
