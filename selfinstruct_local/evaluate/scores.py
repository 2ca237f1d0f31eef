"""The scores of answers against references, and the confidence interval of their mean.

ROUGE-L and exact match are those of the Super-NaturalInstructions evaluation, which Self-Instruct also reports (Wang et
al. 2022, arXiv 2212.10560; yizhongw/Tk-Instruct, src/compute_metrics.py).
"""

import string
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.languages.base import TOKENIZERS, Language

# If the data does not say whether a task is classification, a reference of at most this many words, or characters in
# Chinese, counts as a label.
LABEL_TOKENS: dict[Language, int] = {"en": 3, "zh": 6}
RESAMPLES = 2_000
BOOTSTRAP_SEED = 0
PERCENT = (2.5, 97.5)


class RougeL:
    """ROUGE-L F of answer and reference, by google's `rouge_score`.

    English is tokenised by the library's own tokenizer and stemmed, as in the evaluation named above. That tokenizer
    yields no tokens for other scripts, so Chinese uses the similarity core's `unicode` tokenizer, with one token per
    character.
    """

    def __init__(self, lang: Language) -> None:
        """Create the scorer of a language."""
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk

        own = _UnicodeTokens() if TOKENIZERS[lang] == "unicode" else None
        self._scorer = RougeScorer(["rougeL"], use_stemmer=own is None, tokenizer=own)

    def __call__(self, answer: str, reference: str) -> float:
        """Return F in [0, 1]; 0 if either text has no tokens."""
        return float(self._scorer.score(reference, answer)["rougeL"].fmeasure)


class _UnicodeTokens:
    """The `unicode` tokenizer with the interface that `rouge_score` expects."""

    def tokenize(self, text: str) -> list[str]:
        from selfinstruct_local.kernels import encode  # imports numba

        return encode([text], tokenizer="unicode").row(0)


def has_label(case: Case, lang: Language) -> bool:
    """Return whether the reference is a label, which answers are compared with as a whole.

    It is a label if the data says that the task is classification. If the data says nothing, a reference of one line
    and at most `LABEL_TOKENS` counts as a label.
    """
    if case.is_classification is not None:
        return case.is_classification
    reference = case.reference.strip()
    if "\n" in reference:
        return False
    tokens = _UnicodeTokens().tokenize(reference) if lang == "zh" else reference.split()
    return len(tokens) <= LABEL_TOKENS[lang]


def is_exact_match(answer: str, reference: str) -> bool:
    """Return whether the two are equal except for case, punctuation and white space."""
    return _normalize(answer) == _normalize(reference)


def _normalize(text: str) -> str:
    """Return the text normalised as in SQuAD's evaluation, with articles kept as in Tk-Instruct.

    Punctuation is ASCII's, as there, and also that of all other scripts. A text that consists only of punctuation is
    not changed.
    """
    bare = "".join(each for each in text.casefold() if each not in string.punctuation and not _is_mark(each))
    return " ".join((bare if bare.strip() else text).split())


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


class Interval(NamedTuple):
    """The bounds of a 95 % interval."""

    low: float
    high: float


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the percentile bootstrap interval of a mean (Efron 1979), deterministic for the same values.

    For the differences between two models on the same cases, this is the paired bootstrap (Koehn 2004).

    Args:
        values: one per case, at least one.
    """
    stream = np.random.default_rng(BOOTSTRAP_SEED)
    table = np.asarray(values, dtype=np.float64)
    means = [table[stream.integers(0, table.size, table.size)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, PERCENT)
    return Interval(float(low), float(high))
