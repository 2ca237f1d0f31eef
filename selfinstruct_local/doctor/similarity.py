"""The similarity kernels: where they are kept compiled, and whether they decide as google's `rouge_score` does.

Leans on the kernels and on `filter/verify.py`, which holds the comparison.
"""

import random
from collections.abc import Iterator

from selfinstruct_local.doctor.finding import Finding

# Few and short, for rouge_score compares each with all that were kept before: a second.
TEXTS = 120
PAIRS = 300
WORDS = 100
LONGEST = 24
THRESHOLD = 0.7
SEED = 0
# (tokens of one text, of the other, common): F by whole numbers, 2 x common / (one + other), is 0.7 exactly, so that
# float64 decides, as the published programs let it; and a token less and a token more.
BOUNDARIES = ((10, 10, 7), (20, 20, 14), (9, 11, 7), (8, 12, 7), (18, 22, 14), (25, 35, 21))


def check_cache() -> Finding:
    """Whether compiled kernels can be kept where nobody else can plant any."""
    from selfinstruct_local.kernels import cache

    folder = cache.cache_folder()
    if folder is None:
        detail = "no private folder can be written, so each start compiles the kernels anew"
        mend = "set SELFINSTRUCT_CACHE to a folder of your own (its 'kernels' of mode 0700)"
        return Finding("kernel cache", "warn", detail, mend)
    return Finding("kernel cache", "ok", f"{folder}, private")


def check_kernels() -> Finding:
    """Scores and decisions on random texts, near copies and pairs at the threshold, each against `rouge_score`."""
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
        mend = "delete the kernel cache, install the pinned numba; if it stays, trust no run of this machine"
        return Finding("kernels", "fail", result.describe(), mend)
    return Finding("kernels", "ok", result.describe())


def make_texts() -> list[str]:
    """Instructions of made-up words: new ones, copies with some words changed, and pairs at the threshold."""
    stream = random.Random(SEED)  # noqa: S311 - a sample, no secret
    words = [f"w{number}" for number in range(WORDS)]
    texts = [text for one, other, common in BOUNDARIES for text in _at_boundary(one, other, common)]
    while len(texts) < TEXTS:
        row = stream.choice([stream.choice(texts).split(), stream.choices(words, k=stream.randint(1, LONGEST))])
        for _ in range(round(len(row) * stream.uniform(0, 0.5))):
            row[stream.randrange(len(row))] = stream.choice(words)
        texts.append(" ".join(row))
    return texts


def _at_boundary(one: int, other: int, common: int) -> Iterator[str]:
    """Pairs of such lengths that share in order a token less, so many, and one more, and nothing with other pairs."""
    for shared in (common - 1, common, common + 1):
        name = f"b{one}x{other}x{shared}"
        middle = [f"{name}m{place}" for place in range(shared)]
        yield " ".join([*middle, *(f"{name}l{place}" for place in range(one - shared))])
        yield " ".join([*(f"{name}r{place}" for place in range(other - shared)), *middle])
