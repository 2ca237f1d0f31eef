"""The result of a greedy pass over texts, computed only from the pairs of near texts.

Taking texts in order, each unless a near one was taken before, yields the lexicographically first maximal independent
set of the graph of near pairs (G. Blelloch, J. Fineman, J. Shun, "Greedy sequential maximal independent set and
matching are parallel on average", SPAA 2012). A rejected text does not reject others, so "rejected if any earlier text
is near" would be a different set: in a chain of three texts, each near the next, the first and the third are kept.
"""

# ruff: noqa: ANN001, ANN201, PLR0917 (Numba infers kernel types; the docstrings state them)

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cache import inner, kernel
from .pairs import Pairs


class Refused(NamedTuple):
    """The rejected texts.

    key: int64[refused], ascending. neighbor: int64[refused], key of the earlier kept text with the highest score, ties
    to the first. score: float64[refused], that score.
    """

    key: NDArray[np.int64]
    neighbor: NDArray[np.int64]
    score: NDArray[np.float64]


@inner
def best_kept_before(node, starts, neighbors, scores, kept, limit):  # type: ignore[no-untyped-def]
    """Return (neighbor, score) of the nearest kept neighbor of `node` below `limit`, (-1, NaN) if there is none."""
    best, best_score = np.int64(-1), np.nan
    for k in range(starts[node], starts[node + 1]):
        other = neighbors[k]
        if other < limit and kept[other]:
            better = best < 0 or scores[k] > best_score or (scores[k] == best_score and other < best)
            if better:
                best, best_score = np.int64(other), scores[k]
    return best, best_score


@kernel
def decide_nodes(starts, neighbors, scores, twin, known, kept, neighbor, score):  # type: ignore[no-untyped-def]
    """Decide all nodes in order, filling `kept` (bool[n]), `neighbor` (int64[n]) and `score` (float64[n]).

    `starts` (int64[n + 1]), `neighbors` (int64) and `scores` (float64): adjacency lists of the near pairs. `twin`
    (int64[n]): the first text with the same tokens, -1 for that text itself. The first `known` nodes are always kept.
    """
    for node in range(kept.size):
        kept[node], neighbor[node], score[node] = True, -1, np.nan
        if node < known:
            continue
        first = twin[node]
        if first >= 0 and kept[first]:
            neighbor[node], score[node] = first, 1.0
        else:
            whose = first if first >= 0 else node
            neighbor[node], score[node] = best_kept_before(whose, starts, neighbors, scores, kept, node)
        kept[node] = neighbor[node] < 0


def refuse(pairs: Pairs, known: int = 0) -> Refused:
    """Return the texts that a greedy pass over all texts rejects, each with the nearest text kept before it.

    Args:
        pairs: all near pairs; `left` and `right` are keys, ascending in the order of the pass. Texts with the same
            tokens (a score of 1) need only be paired with the first of them.
        known: texts with a key below this are always kept.
    """
    keys, nodes = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    left, right = nodes[: pairs.left.size], nodes[pairs.left.size :]
    twin = np.full(keys.size, -1, np.int64)
    same = pairs.score == 1.0
    twin[right[same]] = left[same]
    left, right, scores = left[~same], right[~same], pairs.score[~same]
    ends, others = np.concatenate([left, right]), np.concatenate([right, left])
    order = np.argsort(ends, kind="stable")
    starts = np.searchsorted(ends[order], np.arange(keys.size + 1))
    kept, neighbor, score = np.empty(keys.size, np.bool_), np.empty(keys.size, np.int64), np.empty(keys.size)
    decide_nodes(
        starts, others[order], np.concatenate([scores, scores])[order], twin, int(np.searchsorted(keys, known)),
        kept, neighbor, score,
    )  # fmt: skip
    gone = np.flatnonzero(~kept)
    return Refused(keys[gone], keys[neighbor[gone]], score[gone])
