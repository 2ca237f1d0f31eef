"""Checks of the similarity kernels: their compile cache, and agreement with Google's `rouge_score`."""

import random
from collections.abc import Iterator

from selfinstruct_local.doctor.finding import Finding

# Few and short texts, since rouge_score compares each with all texts kept so far; the check takes a second.
TEXTS = 120
PAIRS = 300
WORDS = 100
LONGEST = 24
THRESHOLD = 0.7
SEED = 0
# (length of one text, of the other, LCS) in tokens, for which F = 2 x LCS / (one + other) is exactly 0.7 in rational
# arithmetic, so that float64 rounding decides, as in the published programs. LCS - 1 and LCS + 1 are tested too.
BOUNDARIES = ((10, 10, 7), (20, 20, 14), (9, 11, 7), (8, 12, 7), (18, 22, 14), (25, 35, 21))


def check_cache() -> Finding:
    """Check that compiled kernels can be cached in a folder that no other user can write to."""
    from selfinstruct_local.kernels import cache

    folder = cache.cache_folder()
    if folder is None:
        detail = "no private folder is writable, so each start compiles the kernels again"
        mend = "set SELFINSTRUCT_CACHE to a folder of your own (with mode 0700 for its folder 'kernels')"
        return Finding("kernel cache", "warn", detail, mend)
    return Finding("kernel cache", "ok", f"{folder}, private")


def check_kernels() -> Finding:
    """Compare scores and decisions with `rouge_score`, on random texts, near copies and pairs at the threshold."""
    from selfinstruct_local.filters.decide import Decider
    from selfinstruct_local.filters.verify import DecisionLog
    from selfinstruct_local.kernels import NoveltyIndex
    from selfinstruct_local.task import Task

    decider = Decider((), NoveltyIndex(threshold=THRESHOLD))
    log = DecisionLog()
    texts = make_texts()
    log.add_decided(texts, decider.decide([Task(text) for text in texts]))
    result = log.verify(PAIRS, THRESHOLD, SEED)
    if result.disagreements:
        mend = (
            "delete the kernel cache and install the pinned numba; if this remains, do not trust runs of this machine"
        )
        return Finding("kernels", "fail", result.describe(), mend)
    return Finding("kernels", "ok", result.describe())


def make_texts() -> list[str]:
    """Return instructions of invented words: new ones, copies with some changed words, and pairs at the threshold."""
    stream = random.Random(SEED)  # noqa: S311 - not for cryptography
    words = [f"w{number}" for number in range(WORDS)]
    texts = [text for one, other, common in BOUNDARIES for text in _at_boundary(one, other, common)]
    while len(texts) < TEXTS:
        row = stream.choice([stream.choice(texts).split(), stream.choices(words, k=stream.randint(1, LONGEST))])
        for _ in range(round(len(row) * stream.uniform(0, 0.5))):
            row[stream.randrange(len(row))] = stream.choice(words)
        texts.append(" ".join(row))
    return texts


def _at_boundary(one: int, other: int, common: int) -> Iterator[str]:
    """Yield three pairs of texts with lengths `one` and `other` and an LCS of `common` - 1, `common` and `common` + 1.

    Different pairs have no tokens in common.
    """
    for shared in (common - 1, common, common + 1):
        name = f"b{one}x{other}x{shared}"
        middle = [f"{name}m{place}" for place in range(shared)]
        yield " ".join([*middle, *(f"{name}l{place}" for place in range(one - shared))])
        yield " ".join([*(f"{name}r{place}" for place in range(other - shared)), *middle])
