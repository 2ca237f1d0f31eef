"""The exact prefilter: a prefix index over rare tokens that loses no pair.

A set-similarity join in the line of AllPairs (Bayardo, Ma, Srikant, WWW 2007) and PPJoin (Xiao, Wang, Lin, Yu,
WWW 2008), with the parity signatures of the bitmap filter (Sandes, Teodoro, de Melo, Information Systems 2020).
README.md in this folder proves that no pair with F > threshold is lost; in short:

* F > t needs LCS >= need(m, n), and the LCS is at most the number of token occurrences that the two texts share.
* Sort the occurrences of each text by one order, rare tokens first. If the first shared one is occurrence i of the
  query (m tokens) and j of the pool text (n tokens), then i <= m - need and j <= n - need, and it is the first
  occurrence of its token in both.
* At most m + n - 2 need occurrences are not shared. Each flips one bit of a 64-bit parity signature, so texts whose
  signatures differ in more bits cannot pass.

Each token has one list of postings. A short list is read completely; a long one is divided into groups by length bucket
and depth, and a query reads only the groups of lengths that it could match, each with its own shorter prefix. The
signature and the row of a posting are adjacent in memory, so a list is one contiguous block: under a nanosecond per
posting.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bounds import (
    ADD,
    BUCKETS,
    EXACT_BUCKETS,
    JUDGE,
    PLANNED,
    append_text,
    best_of,
    bucket_of,
    depths_for,
    plan_for,
    signature_of,
    sort_occurrences,
)
from .cache import inner, kernel
from .lcs import popcount, prefetch

#: The postings list of each token is divided into groups when it would exceed this many postings.
SPLIT = 256
_FIRST_ROOM = 4
#: Groups of a divided list: one per bucket and depth.
GROUPS = 2 * BUCKETS

# Columns of `lists` and `groups`: start in the arena, postings in use, room; and the group block of a divided list.
START, USED, ROOM, BLOCK = 0, 1, 2, 3

# Slots of `counters`: arena and blocks in use, the largest room of any list, and what the last `has_room` was short of.
ARENA, BLOCKS, LARGEST, SHORT = 0, 1, 2, 3
COUNTERS = 4
SHORT_OF_ARENA, SHORT_OF_BLOCKS = 1, 2


class Postings(NamedTuple):
    """For each token, the texts that have it among their rarest occurrences.

    lists: int32[vocabulary, 4], columns START, USED, ROOM, BLOCK (1 + number of the block of groups, 0 if undivided).
    groups: int32[blocks * GROUPS, 4], the same columns; group bucket + depth * BUCKETS of its block.
    entries: uint64[arena, 2], parity signature and row number * GROUPS + group, adjacent: one cache miss for both.
    """

    lists: NDArray[np.int32]
    groups: NDArray[np.int32]
    entries: NDArray[np.uint64]


@inner
def append(table, at, signature, row, postings, counters):  # type: ignore[no-untyped-def]
    """Append one posting to the list described by `table[at]`; a full list is moved and its room doubled."""
    used = table[at, USED]
    if used == table[at, ROOM]:
        room = max(_FIRST_ROOM, 2 * used)
        start, moved = table[at, START], counters[ARENA]
        for k in range(used):
            postings.entries[moved + k, 0] = postings.entries[start + k, 0]
            postings.entries[moved + k, 1] = postings.entries[start + k, 1]
        table[at, START], table[at, ROOM] = moved, room
        counters[ARENA] += room
        counters[LARGEST] = max(counters[LARGEST], room)
    end = table[at, START] + used
    postings.entries[end, 0], postings.entries[end, 1] = signature, np.uint64(row)
    table[at, USED] = used + 1


@inner
def divide(token, postings, counters):  # type: ignore[no-untyped-def]
    """Divide the full list of `token` into groups."""
    block = counters[BLOCKS]
    counters[BLOCKS] += 1
    postings.lists[token, BLOCK] = block + 1
    start = postings.lists[token, START]
    for k in range(start, start + postings.lists[token, USED]):
        row = np.int64(postings.entries[k, 1])
        append(postings.groups, block * GROUPS + row % GROUPS, postings.entries[k, 0], row, postings, counters)


@inner
def has_room(occurrences, postings, counters):  # type: ignore[no-untyped-def]
    """Return whether the postings of `occurrences` occurrences surely fit; each might move or divide a list."""
    worst = max(2 * counters[LARGEST], (SPLIT + 1) * _FIRST_ROOM)
    counters[SHORT] = 0
    if counters[ARENA] + occurrences * worst > postings.entries.shape[0]:
        counters[SHORT] = SHORT_OF_ARENA
    elif (counters[BLOCKS] + occurrences) * GROUPS > postings.groups.shape[0]:
        counters[SHORT] = SHORT_OF_BLOCKS
    return counters[SHORT] == 0


@inner
def post(token, signature, row, group, postings, counters):  # type: ignore[no-untyped-def]
    """Add one posting to the list of `token`, dividing the list if it gets long; call `has_room` before."""
    packed = row * GROUPS + group
    if postings.lists[token, BLOCK] == 0 and postings.lists[token, USED] == SPLIT:
        divide(token, postings, counters)
    if postings.lists[token, BLOCK] == 0:
        append(postings.lists, token, signature, packed, postings, counters)
    else:
        append(
            postings.groups, (postings.lists[token, BLOCK] - 1) * GROUPS + group, signature, packed, postings, counters
        )


@inner
def insert(row_number, occurrences, near, deep, postings, counters):  # type: ignore[no-untyped-def]
    """Add the postings of one text (its sorted occurrences); call `has_room` before. O(prefix), amortised."""
    signature = signature_of(occurrences)
    bucket = bucket_of(occurrences.size)
    for i in range(deep):
        if i == 0 or occurrences[i] != occurrences[i - 1]:
            group = bucket if i < near else bucket + BUCKETS
            post(occurrences[i] & 0xFFFFFFFF, signature, row_number, group, postings, counters)


@inner
def lists_to_read(  # type: ignore[no-untyped-def]  # noqa: C901 (one loop; its parts would take a dozen arrays each)
    occurrences, prefix, distance, widest, postings, reads
):
    """Fill `reads` (int64[any, 4]: start, stop, maximum differing bits, occurrence) for a query; return how many.

    Listing before reading keeps the reading loop free of calls and lets the cache misses of the look-ups overlap.
    """
    m = occurrences.size
    lowest, highest = 0, BUCKETS - 1
    while lowest < BUCKETS and prefix[lowest] == 0:
        lowest += 1
    if lowest == BUCKETS:
        return 0
    # Near postings cover partners that are shorter or equally long.
    deep_from = bucket_of(m) + (1 if m <= EXACT_BUCKETS else 0)
    listed = 0
    for i in range(prefix[lowest]):
        prefetch(postings.lists, 4 * (occurrences[i] & 0xFFFFFFFF))
    for i in range(prefix[lowest]):
        if i > 0 and occurrences[i] == occurrences[i - 1]:
            continue
        while prefix[highest] <= i:
            highest -= 1
        token = occurrences[i] & 0xFFFFFFFF
        block = np.int64(postings.lists[token, BLOCK])
        if block == 0:
            used = postings.lists[token, USED]
            if used > 0:
                start = np.int64(postings.lists[token, START])
                reads[listed, 0], reads[listed, 1] = start, start + used
                reads[listed, 2], reads[listed, 3] = widest[highest], i
                prefetch(postings.entries, 2 * start)
                prefetch(postings.entries, 2 * start + 8)
                listed += 1
            continue
        for depth in range(2):
            base = (block - 1) * GROUPS + depth * BUCKETS
            for bucket in range(lowest if depth == 0 else max(lowest, deep_from), highest + 1):
                used = postings.groups[base + bucket, USED]
                if used > 0:
                    start = np.int64(postings.groups[base + bucket, START])
                    reads[listed, 0], reads[listed, 1] = start, start + used
                    reads[listed, 2], reads[listed, 3] = distance[bucket], i
                    prefetch(postings.entries, 2 * start)
                    prefetch(postings.entries, 2 * start + 8)
                    listed += 1
    return listed


@inner
def candidates(occurrences, plan, threshold, postings, scratch, reads, pool):  # type: ignore[no-untyped-def]
    """Fill `scratch.hits` with every row that the bounds do not rule out, each once; return how many."""
    m = occurrences.size
    if m <= PLANNED:
        prefix, distance, widest = plan.prefix[m], plan.distance[m], plan.widest[m]
    else:  # row 0 is scratch: no query has length 0
        prefix, distance, widest = plan.prefix[0], plan.distance[0], plan.widest[0]
        plan_for(m, threshold, prefix, distance, widest)
    signature = signature_of(occurrences)
    scratch.serial[0] += 1
    serial = scratch.serial[0]
    found = 0
    listed = lists_to_read(occurrences, prefix, distance, widest, postings, reads)
    for r in range(listed):
        start, limit, i = reads[r, 0], reads[r, 2], reads[r, 3]
        entries = postings.entries[start : reads[r, 1]]
        for k in range(entries.shape[0]):
            differ = popcount(signature ^ entries[k, 0])
            if differ > limit:
                continue
            packed = np.int64(entries[k, 1])
            row, bucket = packed // GROUPS, packed % BUCKETS
            if differ <= distance[bucket] and i < prefix[bucket] and scratch.seen[row] != serial:
                scratch.seen[row] = serial
                scratch.hits[found] = row
                prefetch(pool.offsets, row)
                found += 1
    return found


@kernel
def join_rows(  # type: ignore[no-untyped-def]
    ids, offsets, first, rows, mode, pool, order, plan, postings, scratch, reads, counters, threshold,
    kept, neighbor, score,
):  # fmt: skip
    """Judge and add the rows of a batch in order, from `first` on; return (rows done, pool rows).

    `mode` is JUDGE, JUDGE_AND_ADD or ADD. Stops before a row for which the postings might lack room; the caller then
    grows them.
    """
    for r in range(first, offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        m = row.size
        occurrences = scratch.occurrences[:m]
        sort_occurrences(row, order, occurrences)
        near, deep = 0, 0
        if m > 0 and mode != JUDGE:
            if m <= PLANNED:
                near, deep = plan.depth[m, 0], plan.depth[m, 1]
            else:
                near, deep = depths_for(m, threshold)
            if not has_room(deep, postings, counters):
                return r, rows
        kept[r], neighbor[r], score[r] = True, -1, np.nan
        if m > 0 and mode != ADD:
            found = candidates(occurrences, plan, threshold, postings, scratch, reads, pool)
            neighbor[r], score[r] = best_of(row, scratch.hits[:found], pool, scratch, threshold)
            kept[r] = neighbor[r] < 0
            if not kept[r]:
                continue
        if mode != JUDGE:
            insert(rows, occurrences, near, deep, postings, counters)
            append_text(row, pool, rows)
            rows += 1
    return offsets.size - 1, rows
