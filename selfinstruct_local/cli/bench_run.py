"""`selfinstruct bench filter`: speed of the filter on this machine and your texts, compared with what it replaces.

Everything is timed in one run on one thread, after a warm-up, as the minimum of several repeats. What would take hours
is timed on a sample and extrapolated, and marked so. The decisions are compared too.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from selfinstruct_local.kernels import Encoded, NoveltyIndex, encode

REPEATS = 5
PUBLISHED_SAMPLE_PAIRS = 20_000
BRUTE_FORCE_QUERIES = 400
# Each token becomes one character, so that a text is a string and its ROUGE-L an indel similarity.
FIRST_CODE_POINT = 0x100
FIRST_SURROGATE, SURROGATES = 0xD800, 0x800  # not characters
CHARACTERS = sys.maxunicode + 1 - FIRST_CODE_POINT - SURROGATES


@dataclass(frozen=True, slots=True)
class Timing:
    """One measured method.

    Attributes:
        name: name of the method.
        seconds: time for all texts.
        extrapolated: whether `seconds` is extrapolated from a sample.
        note: the sample, and whether its decisions agree.
    """

    name: str
    seconds: float
    extrapolated: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class FilterBench:
    """All timings on one set of texts."""

    texts: int
    tokens: int
    kept: int
    threshold: float
    timings: list[Timing]

    def as_record(self) -> dict[str, Any]:
        """Return the timings as plain values for JSON."""
        return asdict(self)


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the minimum wall time of several repeats, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def bench_filter(texts: Sequence[str], threshold: float = 0.7, prefilter: str = "exact") -> FilterBench:
    """Return timings of the greedy novelty filter over `texts` and of methods that compare all pairs.

    Args:
        texts: instructions, in order.
        threshold: ROUGE-L F above which an instruction is a near copy.
        prefilter: prefilter of the measured index.
    """
    start = time.perf_counter()
    _filter(encode(texts[:1000]), threshold, prefilter)
    warm_up = time.perf_counter() - start

    encoded = encode(texts)
    kept = _filter(encoded, threshold, prefilter).kept
    timings = [
        Timing("first use: compile or load the kernels", warm_up),
        Timing("tokenise", fastest(lambda: encode(texts))),
        Timing(f"filter ({prefilter}), tokens ready", fastest(lambda: _filter(encoded, threshold, prefilter))),
        Timing(f"filter ({prefilter}) from text", fastest(lambda: _filter(texts, threshold, prefilter))),
    ]
    timings += [_brute_force(encoded, kept, threshold), _published_loop(texts, kept, threshold)]
    return FilterBench(len(texts), int(encoded.offsets[-1]), int(kept.sum()), threshold, timings)


def _filter(texts: Sequence[str] | Encoded, threshold: float, prefilter: str) -> Any:
    return NoveltyIndex(threshold=threshold, prefilter=prefilter).filter(texts)  # type: ignore[arg-type]


def greedy_pairs(kept: "np.ndarray[Any, np.dtype[np.bool_]]") -> int:
    """Return the number of comparisons of the published greedy loop: each text with all texts kept before it."""
    before = np.cumsum(kept) - kept
    return int(before.sum())


def as_strings(encoded: Encoded) -> list[str]:
    """Return each text as a string with one character per token, for libraries that compare strings.

    Raises:
        ValueError: there are more distinct tokens than `CHARACTERS`.
    """
    ids = encoded.ids.astype(np.int64) + FIRST_CODE_POINT
    ids += np.where(ids >= FIRST_SURROGATE, SURROGATES, 0)
    characters = [chr(number) for number in ids.tolist()]
    bounds = encoded.offsets.tolist()
    return ["".join(characters[start:end]) for start, end in pairwise(bounds)]


def _brute_force(encoded: Encoded, kept: Any, threshold: float) -> Timing:
    name = "rapidfuzz cdist, each text with all texts kept before it"
    try:
        from rapidfuzz.distance import Indel
        from rapidfuzz.process import cdist
    except ImportError:
        return Timing(name, float("nan"), note="not measured: rapidfuzz is not installed")
    if len(encoded.vocabulary) > CHARACTERS:
        return Timing(name, float("nan"), note=f"not measured: more than {CHARACTERS} distinct tokens")
    strings = as_strings(encoded)
    queries = _sample(len(strings), BRUTE_FORCE_QUERIES)
    chosen = [strings[number] for number in queries]

    def scores() -> Any:
        return cdist(
            chosen,
            strings,
            scorer=Indel.normalized_similarity,
            score_cutoff=threshold,
            dtype=np.float64,
            workers=1,
        )

    seconds = fastest(scores, repeats=3)
    matrix = scores()
    older = np.arange(len(strings)) < np.array(queries)[:, None]
    copied = ((matrix > threshold) & older & kept).any(axis=1)
    differing = int((copied == kept[queries]).sum())
    pair = seconds / matrix.size
    note = f"{pair * 1e9:.0f} ns per pair over {matrix.size} pairs; {_agreement(differing, len(queries))}"
    return Timing(name, pair * greedy_pairs(kept), extrapolated=True, note=note)


def _published_loop(texts: Sequence[str], kept: Any, threshold: float) -> Timing:
    name = "rouge_score, the published loop in one process"
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    tokens = [scorer._tokenizer.tokenize(text) for text in texts]  # noqa: SLF001 - as the published program does
    pool = np.flatnonzero(kept)
    # Whole decisions are sampled so that they can be compared; early texts have few comparisons.
    queries: list[int] = []
    pairs, differing = 0, 0
    stream = random.Random(0)  # noqa: S311 - a sample
    start = time.perf_counter()
    while pairs < PUBLISHED_SAMPLE_PAIRS or not queries:
        query = stream.randrange(len(texts))
        older = pool[: np.searchsorted(pool, query)]
        scores = [rouge_scorer._score_lcs(tokens[query], tokens[number]).fmeasure for number in older]  # noqa: SLF001
        differing += int((max(scores, default=0.0) > threshold) == kept[query])
        queries.append(query)
        pairs += max(1, len(scores))
    pair = (time.perf_counter() - start) / pairs
    note = f"{pair * 1e6:.1f} us per pair over {pairs} pairs; {_agreement(differing, len(queries))}"
    return Timing(name, pair * greedy_pairs(kept), extrapolated=True, note=note)


def _agreement(differing: int, decisions: int) -> str:
    return f"{decisions} decisions compared, {differing or 'none'} differ"


def _sample(count: int, wanted: int) -> list[int]:
    return sorted(random.Random(0).sample(range(count), min(wanted, count)))  # noqa: S311 - a sample
