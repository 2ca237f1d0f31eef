"""The stages between reading and writing: each text is sent to the groups that need it, and each group finds its pairs.

A group owns some of the tokens (`kernels.pairs`), or some MinHash bands and values (`kernels.bands`). Rows between
stages are dictionaries of numbers and bytes, which Ray Data moves unchanged.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.cluster.sources import NUMBER_BITS, SourcePart
from selfinstruct_local.kernels import TokenizerName, Vocabulary
from selfinstruct_local.kernels.bands import band_digests, band_pairs
from selfinstruct_local.kernels.minhash import Bands
from selfinstruct_local.kernels.novelty import DEFAULT_SEED
from selfinstruct_local.kernels.pairs import Pairs, Texts, join, near_pairs, route, take

if TYPE_CHECKING:
    from pyarrow import Table
    from ray import ObjectRef


class JoinPlan(NamedTuple):
    """The division of the join into groups.

    Attributes:
        threshold: ROUGE-L F above which two texts are near.
        vocabulary: number of distinct tokens.
        groups: number of groups.
        bands: MinHash bands; None joins by rare tokens, which loses no pair.
    """

    threshold: float
    vocabulary: int
    groups: int
    bands: Bands | None

    @property
    def band_sets(self) -> int:
        """Return the number of sets of bands; with more groups than sets, the values of a set are divided too."""
        return min(self.groups, self.bands.bands) if self.bands else 0

    @property
    def residues(self) -> int:
        """Return the number of groups that share a set of bands."""
        return max(1, self.groups // self.band_sets) if self.bands else 1


def rank_tokens(
    rows: Iterable[Mapping[str, Any]], tokenizer: TokenizerName
) -> tuple[dict[int, NDArray[np.int32]], int]:
    """Number the tokens of all parts from the rarest.

    Args:
        rows: rows with `part`, `token_bytes`, `token_bounds` and `token_counts` of `tokenise_part`.
        tokenizer: the tokenizer that made the tokens.

    Returns:
        For each part, the number of each token in its own vocabulary, int32; and the number of distinct tokens.
    """
    merged = Vocabulary(tokenizer)
    counts = np.zeros(0, np.int64)
    meanings: dict[int, NDArray[np.int32]] = {}
    for row in rows:
        arena, bounds = np.frombuffer(row["token_bytes"], np.uint8), np.frombuffer(row["token_bounds"], np.int64)
        meaning = merged.translate(Vocabulary.from_bytes(tokenizer, arena, bounds))
        if len(merged) > counts.size:
            counts = np.concatenate([counts, np.zeros(len(merged) - counts.size, np.int64)])
        counts[meaning] += np.frombuffer(row["token_counts"], np.int64)
        meanings[row["part"]] = meaning
    rank = np.empty(counts.size, np.int32)
    # Equal counts are ordered by the token's hash, so that the order does not depend on the order of the parts.
    rank[np.lexsort((merged.hashes, counts))] = np.arange(counts.size, dtype=np.int32)
    return {part: rank[meaning] for part, meaning in meanings.items()}, counts.size


@functools.lru_cache(maxsize=1)
def _group_of_tokens(vocabulary: int, groups: int) -> NDArray[np.int32]:
    """Return the group that owns each token, int32[vocabulary]; hashing spreads rare and common tokens evenly."""
    mixed = (np.arange(vocabulary, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
    return (mixed % np.uint64(groups)).astype(np.int32)


def route_part(
    row: dict[str, Any],
    parts: Sequence[SourcePart],
    ranks: "Mapping[int, ObjectRef[NDArray[np.int32]]]",
    plan: JoinPlan,
) -> Iterator[dict[str, Any]]:
    """Yield each group's share of a part.

    Yields:
        `group`; `part`; the texts as `ids` (int32, numbered from the rarest token) and `offsets` (int64); their `keys`
        (int64); and with MinHash the `digests` (uint64[texts, bands of the group]), 0 for those of another group.
    """
    import ray

    number = row["part"]
    rank: NDArray[np.int32] = ray.get(ranks[number])
    texts = Texts(rank[np.frombuffer(row["ids"], np.int32)], np.frombuffer(row["offsets"], np.int64))
    keys = np.frombuffer(row["numbers"], np.int64) | parts[number].source << NUMBER_BITS
    shares = [*(_shares_by_band(texts, plan, plan.bands) if plan.bands else _shares_by_token(texts, plan))]
    # Ray Data derives the columns from the rows, so a part without shares sends one empty share.
    for group, rows, digests in shares or [(0, np.empty(0, np.int64), np.empty(0, np.uint64))]:
        share = take(texts, rows)
        yield {
            "group": group,
            "part": number,
            "ids": share.ids.tobytes(),
            "offsets": share.offsets.tobytes(),
            "keys": keys[rows].tobytes(),
            "digests": digests.tobytes(),
        }


def _shares_by_token(texts: Texts, plan: JoinPlan) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint64]]]:
    rows, groups = route(texts, plan.threshold, _group_of_tokens(plan.vocabulary, plan.groups))
    order = np.argsort(groups, kind="stable")
    found, starts = np.unique(groups[order], return_index=True)
    for group, mine in zip(found.tolist(), np.split(rows[order], starts[1:]), strict=False):  # no groups: one empty
        yield group, mine, np.empty(0, np.uint64)


def _shares_by_band(
    texts: Texts, plan: JoinPlan, bands: Bands
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint64]]]:
    digests = band_digests(texts, plan.vocabulary, bands, DEFAULT_SEED)
    for number, columns in enumerate(np.array_split(np.arange(bands.bands), plan.band_sets)):
        mine = digests[:, columns]
        residues = mine % np.uint64(plan.residues)
        for residue in range(plan.residues):
            own = np.where(residues == residue, mine, 0)
            rows = np.flatnonzero(own.any(axis=1))
            if rows.size:
                yield number * plan.residues + residue, rows, own[rows]


def join_group(table: "Table", plan: JoinPlan) -> dict[str, list[Any]]:
    """Return the near pairs of a group, by keys: `left`, `right` (int64) and `score` (float64).

    Also return the input of the group: `texts`, their number, and `sent`, their bytes.
    """
    rows = sorted((row for row in table.to_pylist() if row["keys"]), key=lambda row: row["part"])
    if not rows:
        return {"left": [b""], "right": [b""], "score": [b""], "texts": [0], "sent": [0]}
    ids = np.concatenate([np.frombuffer(row["ids"], np.int32) for row in rows])
    lengths = [np.diff(np.frombuffer(row["offsets"], np.int64)) for row in rows]
    keys = np.concatenate([np.frombuffer(row["keys"], np.int64) for row in rows])
    # Renumbered in the same order, so that tables are as long as the group's number of tokens.
    used = np.zeros(plan.vocabulary, np.bool_)
    used[ids] = True
    texts = Texts((np.cumsum(used, dtype=np.int32) - 1)[ids], np.cumsum(np.concatenate([[0], *lengths])))
    if plan.bands:
        digests = [
            np.frombuffer(row["digests"], np.uint64).reshape(part.size, -1)
            for row, part in zip(rows, lengths, strict=True)
        ]
        pairs = band_pairs(texts, np.concatenate(digests), int(used.sum()), plan.threshold)
    else:
        owned = _group_of_tokens(plan.vocabulary, plan.groups)[used] == rows[0]["group"]
        pairs = near_pairs(texts, plan.threshold, owned)
    return {
        "left": [keys[pairs.left].tobytes()],
        "right": [keys[pairs.right].tobytes()],
        "score": [pairs.score.tobytes()],
        "texts": [keys.size],
        "sent": [table.nbytes],
    }


def gather(rows: Iterable[Mapping[str, Any]], plan: JoinPlan) -> Pairs:
    """Return the pairs of all groups, each once."""
    pairs = join(
        [
            Pairs(
                np.frombuffer(row["left"], np.int64),
                np.frombuffer(row["right"], np.int64),
                np.frombuffer(row["score"], np.float64),
            )
            for row in rows
        ]
    )
    if plan.bands is None:
        return pairs  # only the owner of the rarest shared token reports a pair
    order = np.lexsort((pairs.right, pairs.left))
    left, right = pairs.left[order], pairs.right[order]
    new = np.ones(order.size, np.bool_)
    new[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Pairs(left[new], right[new], pairs.score[order][new])
