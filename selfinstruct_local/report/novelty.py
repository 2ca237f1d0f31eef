"""The similarity of instructions to the seeds and to earlier instructions: exact ROUGE-L, by full scans.

A scan of all pairs takes about two nanoseconds per pair and thread; above `MAX_PAIRS` pairs, a random sample of the
instructions is compared with all earlier ones.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.kernels import Encoded, NoTokensWarning, TokenizerName, Vocabulary, encode, rouge_l_matrix
from selfinstruct_local.kernels.scan import Scanner

# All pairs of 77,000 instructions, which takes about ten seconds on two processors.
MAX_PAIRS = 3_000_000_000
CLOSEST = 20
# Number of scores in memory at once: 16 MB.
_CELLS = 2_000_000
_LAID_OUT = 8192
_SEED = 20221220


class ScoredPair(NamedTuple):
    """Two instructions by position, the later one first, and their ROUGE-L F."""

    score: float
    later: int
    earlier: int


class SimilarityScores(NamedTuple):
    """The result of a scan.

    Attributes:
        to_seeds: float64[instructions], highest ROUGE-L F with a seed; empty without seeds.
        nearest: int64[instructions], position of the nearest earlier instruction, -1 where `to_earlier` is NaN.
            Positions count the seeds first if these precede the instructions.
        to_earlier: float64[instructions], highest ROUGE-L F with an earlier instruction; NaN for the first and for
            instructions that were not scanned.
        scanned: number of instructions that were compared with all earlier ones.
        above: number of scanned instructions above the threshold.
        closest: the closest pairs at or below the threshold, closest first, one per later instruction; positions as in
            `nearest`.
        without_tokens: number of instructions without tokens; they score 0 with everything.
    """

    to_seeds: NDArray[np.float64]
    nearest: NDArray[np.int64]
    to_earlier: NDArray[np.float64]
    scanned: int
    above: int
    closest: tuple[ScoredPair, ...]
    without_tokens: int


def measure_similarity(
    seeds: Sequence[str],
    instructions: Sequence[str],
    tokenizer: TokenizerName,
    threshold: float,
    *,
    seeds_stand_before: bool,
) -> SimilarityScores:
    """Compare instructions with the seeds, and each with the earlier ones.

    Args:
        seeds: the seed instructions.
        instructions: in the order in which they were added.
        tokenizer: tokenizer of ROUGE-L.
        threshold: threshold of near copies, in (0, 1].
        seeds_stand_before: whether the seeds count as earlier instructions, as in a run.
    """
    vocabulary = Vocabulary(tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)  # counted in `without_tokens`
        encoded_seeds = encode(list(seeds), tokenizer, vocabulary)
        encoded = encode(list(instructions), tokenizer, vocabulary)
        pool = encode([*seeds, *instructions], tokenizer, vocabulary) if seeds_stand_before else encoded
    first = len(pool) - len(encoded)
    to_seeds = np.empty(0)
    if len(encoded_seeds):
        rows = max(1, _CELLS // len(encoded_seeds))
        blocks = (encoded.block(start, min(start + rows, len(encoded))) for start in range(0, len(encoded), rows))
        to_seeds = np.concatenate(
            [np.empty(0), *(rouge_l_matrix(block, encoded_seeds).max(axis=1) for block in blocks)]
        )
    nearest, to_earlier, above, closest = _scan(pool, first, threshold)
    scanned = int(np.isfinite(to_earlier).sum())
    return SimilarityScores(to_seeds, nearest, to_earlier, scanned, above, closest, int((encoded.lengths == 0).sum()))


def _scan(
    pool: Encoded, first: int, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], int, tuple[ScoredPair, ...]]:
    """Return the nearest earlier text of each text from `first` on.

    Return its position, its score, the number of scores above the threshold, and the closest pairs.
    """
    nearest = np.full(len(pool) - first, -1, np.int64)
    best = np.full(len(pool) - first, np.nan)
    positions = _positions(len(pool), max(first, 1))
    pairs: list[ScoredPair] = []
    above = 0
    rows = max(1, _CELLS // max(1, len(pool)))
    scanner = Scanner()
    for start in range(0, positions.size, rows):
        chosen = positions[start : start + rows]
        scores = _scores_with_earlier(scanner, pool, chosen)
        lines = np.arange(chosen.size)
        earlier = scores.argmax(axis=1)
        values = scores[lines, earlier]
        nearest[chosen - first], best[chosen - first] = earlier, values
        over = np.flatnonzero(values > threshold)
        above += over.size
        for line in over:
            scores[line, scores[line] > threshold] = -1.0
            earlier[line] = scores[line].argmax()
            values[line] = scores[line, earlier[line]]
        pairs += [
            ScoredPair(float(values[line]), int(chosen[line]), int(earlier[line]))
            for line in np.argsort(-values, kind="stable")[:CLOSEST]
            if values[line] > 0
        ]
    return nearest, best, above, tuple(sorted(pairs, key=lambda pair: (-pair.score, pair.later))[:CLOSEST])


def _scores_with_earlier(scanner: Scanner, pool: Encoded, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the ROUGE-L F of each text in ascending `chosen` with the texts before it, and -1 with the others."""
    # The scanner prepares each new text once, so it receives many at a time.
    known = min(len(pool), -(-int(chosen[-1]) // _LAID_OUT) * _LAID_OUT)
    queries = _take(pool, chosen)
    scores = scanner.scan((queries.ids, queries.offsets), pool.ids, pool.offsets, known, len(pool.vocabulary))
    later = scores[:, chosen[0] :]
    later[np.arange(chosen[0], known) >= chosen[:, None]] = -1.0
    return scores


def _positions(texts: int, first: int) -> NDArray[np.int64]:
    """Return the positions to compare with all earlier texts: all, or an ascending random sample."""
    positions = np.arange(first, texts)
    if positions.size * texts / 2 <= MAX_PAIRS:
        return positions
    chosen = np.random.default_rng(_SEED).choice(positions, int(2 * MAX_PAIRS / texts), replace=False)
    return np.sort(chosen)


def _take(texts: Encoded, positions: NDArray[np.int64]) -> Encoded:
    """Return the texts at `positions`."""
    lengths = texts.lengths[positions]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([texts.ids[texts.offsets[each] : texts.offsets[each + 1]] for each in positions])
    return Encoded(ids, offsets, texts.vocabulary)
