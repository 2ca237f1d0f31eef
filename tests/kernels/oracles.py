"""Plain Python twins of the kernels, and the texts that try them. Slow, obvious, and independent of what they judge."""

import os
import random
from collections import Counter
from collections.abc import Sequence

from rouge_score import rouge_scorer
from rouge_score import tokenize as rouge_tokenize

#: SELFINSTRUCT_SOAK=1 runs the full counts of the issue; otherwise a tenth or less.
SOAK = os.environ.get("SELFINSTRUCT_SOAK") == "1"

_SCORER = rouge_scorer.RougeScorer(["rougeL"])


def tokenize(text: str) -> list[str]:
    """Return google's own tokens."""
    return list(rouge_tokenize.tokenize(text, None))


def rouge_l(a: str, b: str) -> float:
    """Return google's own ROUGE-L F."""
    return float(_SCORER.score(a, b)["rougeL"].fmeasure)


def lcs(a: Sequence[object], b: Sequence[object]) -> int:
    """LCS by dynamic programming, O(len(a) * len(b))."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = left = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            left = diagonal + 1 if x == y else max(above, left)
            diagonal, row[j] = above, left
    return row[-1]


def f_measure(common: int, m: int, n: int) -> float:
    """ROUGE-L F in `rouge_score`'s float64 steps."""
    if common == 0:
        return 0.0
    precision, recall = common / m, common / n
    return 2 * precision * recall / (precision + recall)


def need(m: int, n: int, threshold: float) -> int:
    """The smallest LCS whose F is above `threshold`, by trying all; min(m, n) + 1 if none is."""
    least = next((common for common in range(1, min(m, n) + 1) if f_measure(common, m, n) > threshold), None)
    return min(m, n) + 1 if least is None else least


def score(a: Sequence[object], b: Sequence[object]) -> float:
    """ROUGE-L F of two token lists."""
    return f_measure(lcs(a, b), len(a), len(b)) if a and b else 0.0


def greedy(
    rows: Sequence[Sequence[object]], threshold: float, pool: Sequence[Sequence[object]] = ()
) -> tuple[list[bool], list[int], list[float | None]]:
    """The published loop: each row against the pool and the survivors before it."""
    members = list(pool)
    kept, neighbors, scores = [], [], []
    for row in rows:
        best, best_score = -1, threshold
        for position, member in enumerate(members):
            # F is at most 2 shared / (m + n): a bound with room to spare for rounding.
            shared = (Counter(row) & Counter(member)).total() if row and member else 0
            if 2 * shared + 1e-6 < threshold * (len(row) + len(member)):
                continue
            value = score(row, member)
            if value > best_score:
                best, best_score = position, value
        kept.append(best < 0)
        neighbors.append(best)
        scores.append(None if best < 0 else best_score)
        if best < 0:
            members.append(row)
    return kept, neighbors, scores


def occurrences(row: Sequence[str]) -> set[tuple[str, int]]:
    """Tokens with their how-many-th: the multiset as a set."""
    seen: Counter[str] = Counter()
    out = set()
    for token in row:
        out.add((token, seen[token]))
        seen[token] += 1
    return out


def jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Jaccard similarity of token occurrences."""
    x, y = occurrences(a), occurrences(b)
    return len(x & y) / len(x | y) if x | y else 0.0


# --- texts ---------------------------------------------------------------------------------------------------------


def words(count: int) -> list[str]:
    """A vocabulary of made-up words."""
    syllables = ["ba", "ke", "li", "mo", "nu", "ra", "si", "to", "ve", "zu"]
    return [
        syllables[i // 100 % 10] + syllables[i // 10 % 10] + syllables[i % 10] + str(i // 1000) for i in range(count)
    ]


def sentence(rng: random.Random, vocabulary: Sequence[str], length: int) -> list[str]:
    """Tokens with a skewed (roughly Zipf) distribution."""
    return [vocabulary[min(len(vocabulary) - 1, int(len(vocabulary) * rng.random() ** 3))] for _ in range(length)]


def altered(rng: random.Random, row: Sequence[str], vocabulary: Sequence[str], edits: int) -> list[str]:
    """A copy of `row` after so many random replacements, deletions, insertions and swaps."""
    out = list(row)
    for _ in range(edits):
        at = rng.randrange(len(out)) if out else 0
        kind = rng.randrange(4)
        if kind == 0 and out:
            out[at] = rng.choice(vocabulary)
        elif kind == 1 and len(out) > 1:
            del out[at]
        elif kind == 2:
            out.insert(at, rng.choice(vocabulary))
        elif out:
            other = rng.randrange(len(out))
            out[at], out[other] = out[other], out[at]
    return out


def near_copies(seed: int, count: int, *, longest: int = 24) -> list[list[str]]:
    """Token lists rich in copies altered to F of about 0.6 to 0.8 (and some exact ones, some empty)."""
    rng = random.Random(seed)
    vocabulary = words(600)
    rows: list[list[str]] = []
    while len(rows) < count:
        if rows and rng.random() < 0.6:
            row = rng.choice(rows)
            edits = 0 if rng.random() < 0.1 else max(1, round(len(row) * rng.uniform(0.1, 0.5)))
            rows.append(altered(rng, row, vocabulary, edits))
        else:
            rows.append(sentence(rng, vocabulary, rng.choice([0, 1, 2, 3, *range(4, longest)])))
    return rows
