"""The approximate prefilter: MinHash signatures and banded locality-sensitive hashing.

MinHash: A. Broder, "On the resemblance and containment of documents", 1997; banding as in Leskovec, Rajaraman,
Ullman, *Mining of Massive Datasets*, chapter 3. The elements of a text are its token occurrences (pairs of
token and occurrence number), not longer shingles: F > t bounds the Jaccard similarity of token occurrences (see
`jaccard_bound`), but not of longer shingles.

Unlike the exact prefilter, this one may miss a pair. Bands and rows follow from the threshold and the target recall;
`NoveltyIndex.measure_recall` reports the recall reached. Two indexes hold the bands: the compiled one here, and
datasketch's `MinHashLSH` for its storages (Redis and others), which several processes can share. Both give the same
candidates.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bounds import (
    ADD,
    JUDGE,
    PLANNED,
    append_text,
    best_of,
    bucket_of,
    plan_for,
    signature_of,
    sort_occurrences,
)
from .cache import inner, kernel
from .lcs import popcount, prefetch
from .tokenize import Encoded

if TYPE_CHECKING:
    from datasketch import MinHashLSH

#: The trade-off between few rows per band (many candidates) and many rows (many bands), measured on the 52,002 Alpaca
#: instructions at threshold 0.7 and recall 0.999: the share of the pool that bands of 1, 2, ... rows leave as
#: candidates, the nanoseconds per candidate (its chain is a random walk through memory) and per band.
_LEFT = (0.143, 0.053, 0.0272, 0.0064, 0.0026, 0.0017, 0.00067)
_CANDIDATE_NS, _BAND_NS = 200.0, 60.0
#: Maximum number of bands; more would take over 2.3 kB per text (15.4 bytes per band).
_MOST_BANDS = 150


class Bands(NamedTuple):
    """`bands` bands of `rows` values each: `bands * rows` permutations."""

    bands: int
    rows: int


def jaccard_bound(threshold: float) -> float:
    """Return the smallest Jaccard similarity of token occurrences that ROUGE-L F > `threshold` allows.

    With o occurrences shared, F = 2 LCS / (m + n) <= 2 o / (m + n), so o >= t (m + n) / 2 and
    J = o / (m + n - o) >= t / (2 - t): 0.538 at 0.7. (Equal if float64 rounds an F on the boundary to above t.)
    """
    return threshold / (2 - threshold)


def bands_needed(threshold: float, recall: float, rows: int) -> int:
    """Return the fewest bands of `rows` values that find a pair at the Jaccard bound with probability >= `recall`.

    A band agrees with probability J ** rows, so (1 - J ** rows) ** bands <= 1 - recall.
    """
    agree = jaccard_bound(threshold) ** rows
    return 1 if agree >= 1 else max(1, math.ceil(math.log(1 - recall) / math.log1p(-agree)))


def choose_bands(threshold: float, recall: float, pool: int) -> Bands:
    """Return the cheapest bands for a pool of `pool` texts: more rows per band prune more but need more bands."""

    def cost(rows: int) -> float:
        return bands_needed(threshold, recall, rows) * _BAND_NS + pool * _LEFT[rows - 1] * _CANDIDATE_NS

    affordable = [rows for rows in range(1, len(_LEFT) + 1) if bands_needed(threshold, recall, rows) <= _MOST_BANDS]
    rows = min(affordable or [1], key=cost)
    return Bands(max(2, bands_needed(threshold, recall, rows)), rows)  # datasketch needs at least two bands


class Permutations(NamedTuple):
    """Permutations h -> a h + b mod 2**32, a odd: uint32[bands * rows] each."""

    a: NDArray[np.uint32]
    b: NDArray[np.uint32]


def permutations(count: int, seed: int) -> Permutations:
    """Return `count` random permutations of the 32-bit integers, drawn with `seed`."""
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 1 << 32, (2, count), np.uint32)
    return Permutations(a | np.uint32(1), b)


@inner
def minhash_row(occurrences, token_hashes, permutation, out):  # type: ignore[no-untyped-def]
    """Fill `out` (uint32[permutations]) with the MinHash of sorted occurrences. O(tokens * permutations).

    Elements are hashed by the bytes of their token, so that signatures agree between processes.
    """
    for k in range(out.size):
        out[k] = np.uint32(0xFFFFFFFF)
    occurrence = np.uint64(0)
    for i in range(occurrences.size):
        occurrence = occurrence + np.uint64(1) if i > 0 and occurrences[i] == occurrences[i - 1] else np.uint64(0)
        mixed = token_hashes[occurrences[i] & 0xFFFFFFFF] + occurrence * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(33)
        mixed *= np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(33)
        element = np.uint32(mixed)
        for k in range(out.size):
            out[k] = min(out[k], np.uint32(permutation.a[k] * element + permutation.b[k]))


@kernel
def minhash_rows(ids, offsets, order, token_hashes, permutation, occurrences, out):  # type: ignore[no-untyped-def]
    """Fill `out` (uint32[rows, permutations]) with the MinHash of every text."""
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        sort_occurrences(row, order, occurrences[: row.size])
        minhash_row(occurrences[: row.size], token_hashes, permutation, out[r])


def signatures(texts: Encoded, bands: Bands, seed: int) -> NDArray[np.uint32]:
    """Return the MinHash signatures of `texts`, uint32[n, bands.bands * bands.rows]; all ones for an empty text."""
    out = np.empty((len(texts), bands.bands * bands.rows), np.uint32)
    order = np.zeros(len(texts.vocabulary), np.int32)
    occurrences = np.empty(int(texts.lengths.max(initial=1)), np.int64)
    hashes = texts.vocabulary.hashes
    minhash_rows(texts.ids, texts.offsets, order, hashes, permutations(out.shape[1], seed), occurrences, out)
    return out


# --- the compiled band index ---------------------------------------------------------------------------------------


class BandTable(NamedTuple):
    """Chains of rows that agree in a band, one hash table per band.

    cells: uint64[bands, slots], the upper 32 bits a tag, the lower 32 bits 1 + the last row of the chain; 0 if free.
    before: int32[rows, bands], 1 + the previous row of the chain, 0 at its end.
    parity: uint64[rows], the parity signatures of the prefix index.
    signature: uint32[permutations], slots: int64[bands], scratch.
    """

    cells: NDArray[np.uint64]
    before: NDArray[np.int32]
    parity: NDArray[np.uint64]
    signature: NDArray[np.uint32]
    slots: NDArray[np.int64]


def band_table(rows: int, bands: Bands) -> BandTable:
    """Return an empty table with room for `rows` texts at a load factor of at most 0.7."""
    slots = int(rows / 0.7) + 8
    return BandTable(
        np.zeros((bands.bands, slots), np.uint64), np.zeros((rows, bands.bands), np.int32),
        np.zeros(rows, np.uint64), np.zeros(bands.bands * bands.rows, np.uint32), np.zeros(bands.bands, np.int64),
    )  # fmt: skip


@inner
def band_digest(signature, band, rows):  # type: ignore[no-untyped-def]
    """Return one hash (uint64) of the `rows` values of a band of a signature."""
    digest = np.uint64(0x9E3779B97F4A7C15)
    for k in range(rows):
        digest = (digest ^ np.uint64(signature[band * rows + k])) * np.uint64(0xFF51AFD7ED558CCD)
        digest ^= digest >> np.uint64(32)
    return digest


@inner
def band_slots(table):  # type: ignore[no-untyped-def]
    """Fill `table.slots` with the slot of each band's chain for `table.signature`, or a free slot for it.

    32 bits of a 64-bit hash choose the slot and the other 32 are its tag. About one query in ten million finds a chain
    of other values; that costs a verification and does not change the result.
    """
    bands, slots = table.cells.shape
    rows = table.signature.size // bands
    for band in range(bands):
        digest = band_digest(table.signature, band, rows)
        slot = np.int64(((digest & np.uint64(0xFFFFFFFF)) * np.uint64(slots)) >> np.uint64(32))
        table.slots[band] = slot
        table.signature[band * rows] = np.uint32(digest >> np.uint64(32))
        prefetch(table.cells, band * slots + slot)
    for band in range(bands):
        tag, slot = np.uint64(table.signature[band * rows]), table.slots[band]
        while table.cells[band, slot] != 0 and table.cells[band, slot] >> np.uint64(32) != tag:
            slot = (slot + 1) % slots
        table.slots[band] = slot


@inner
def band_candidates(occurrences, plan, threshold, table, scratch, pool, check):  # type: ignore[no-untyped-def]
    """Fill `scratch.hits` with the rows that share a band, each once; return how many.

    If `check` is 1, includes only rows that pass the bounds on length and parity signature, as in the exact index.
    """
    m = occurrences.size
    planned = m if m <= PLANNED else 0  # row 0 is scratch
    distance = plan.distance[planned]
    if planned == 0:
        plan_for(m, threshold, plan.prefix[0], distance, plan.widest[0])
    scratch.serial[0] += 1
    serial = scratch.serial[0]
    parity = signature_of(occurrences)
    found = 0
    for band in range(table.slots.size):
        row = np.int64(table.cells[band, table.slots[band]] & np.uint64(0xFFFFFFFF)) - 1
        while row >= 0:
            if scratch.seen[row] != serial:
                scratch.seen[row] = serial
                n = pool.offsets[row + 1] - pool.offsets[row]
                if check == 0 or popcount(parity ^ table.parity[row]) <= distance[bucket_of(n)]:
                    scratch.hits[found] = row
                    found += 1
            row = np.int64(table.before[row, band]) - 1
    return found


@inner
def band_insert(row, occurrences, table):  # type: ignore[no-untyped-def]
    """Add row number `row` to the chains at `table.slots`."""
    rows = table.signature.size // table.slots.size
    table.parity[row] = signature_of(occurrences)
    for band in range(table.slots.size):
        slot = table.slots[band]
        table.before[row, band] = np.int32(table.cells[band, slot] & np.uint64(0xFFFFFFFF))
        table.cells[band, slot] = (np.uint64(table.signature[band * rows]) << np.uint64(32)) | np.uint64(row + 1)


@kernel
def join_bands(  # type: ignore[no-untyped-def]
    ids, offsets, rows, mode, pool, order, plan, token_hashes, permutation, table, scratch, threshold,
    kept, neighbor, score,
):  # fmt: skip
    """Judge and add the rows of a batch in order, as `prefix.join_rows` does; return the new number of pool rows."""
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        m = row.size
        occurrences = scratch.occurrences[:m]
        if m > 0:
            sort_occurrences(row, order, occurrences)
            minhash_row(occurrences, token_hashes, permutation, table.signature)
            band_slots(table)
        kept[r], neighbor[r], score[r] = True, -1, np.nan
        if m > 0 and mode != ADD:
            found = band_candidates(occurrences, plan, threshold, table, scratch, pool, 1)
            neighbor[r], score[r] = best_of(row, scratch.hits[:found], pool, scratch, threshold)
            kept[r] = neighbor[r] < 0
        if mode != JUDGE and kept[r]:
            if m > 0:
                band_insert(rows, occurrences, table)
            append_text(row, pool, rows)
            rows += 1
    return rows


@kernel
def mark_candidates(  # type: ignore[no-untyped-def]
    ids, offsets, pool, order, plan, token_hashes, permutation, table, scratch, threshold, marked
):
    """Set `marked[r, p]` (bool[texts, pool]) where text r and pool row p share a band."""
    for r in range(offsets.size - 1):
        row = ids[offsets[r] : offsets[r + 1]]
        if row.size == 0:
            continue
        occurrences = scratch.occurrences[: row.size]
        sort_occurrences(row, order, occurrences)
        minhash_row(occurrences, token_hashes, permutation, table.signature)
        band_slots(table)
        for h in range(band_candidates(occurrences, plan, threshold, table, scratch, pool, 0)):
            marked[r, scratch.hits[h]] = True


# --- datasketch's index --------------------------------------------------------------------------------------------


class Signature:
    """One signature with what `datasketch.MinHashLSH` reads: `hashvalues` and a length."""

    def __init__(self, hashvalues: NDArray[np.uint32]) -> None:
        self.hashvalues = hashvalues

    def __len__(self) -> int:
        return int(self.hashvalues.size)


def datasketch_lsh(bands: Bands, storage_config: dict[str, Any] | None = None) -> "MinHashLSH":
    """Return an empty `MinHashLSH` with these bands; `storage_config` is datasketch's (Redis, Cassandra...)."""
    from datasketch import MinHashLSH  # imports scipy, which takes as long as numba

    return MinHashLSH(
        num_perm=bands.bands * bands.rows, params=(bands.bands, bands.rows), storage_config=storage_config
    )
