"""How like its reference an answer is, and how sure the mean of such scores is.

ROUGE-L and exact match are those of the Super-NaturalInstructions evaluation, which Self-Instruct reports too (Wang et
al. 2022, arXiv 2212.10560; yizhongw/Tk-Instruct, src/compute_metrics.py). Leans on google's `rouge_score`.
"""

import string
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.languages.base import TOKENIZERS, Language

# Where the data does not say whether a task is classification: a reference of at most so many words, or of so many
# characters in Chinese, is taken for a label.
LABEL_TOKENS: dict[Language, int] = {"en": 3, "zh": 6}
RESAMPLES = 2_000
BOOTSTRAP_SEED = 0
PERCENT = (2.5, 97.5)


class RougeL:
    """ROUGE-L F between an answer and its reference, by `rouge_score`.

    English is cut by the library's own tokenizer and stemmed, as the evaluation named above does. Other scripts have no
    token there, so Chinese is cut by the similarity core's `unicode` tokenizer, a character a token.
    """

    def __init__(self, lang: Language) -> None:
        """Makes the scorer of a language."""
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk

        own = _UnicodeTokens() if TOKENIZERS[lang] == "unicode" else None
        self._scorer = RougeScorer(["rougeL"], use_stemmer=own is None, tokenizer=own)

    def __call__(self, answer: str, reference: str) -> float:
        """F in [0, 1]; 0 where one of the two has no token."""
        return float(self._scorer.score(reference, answer)["rougeL"].fmeasure)


class _UnicodeTokens:
    """The `unicode` tokenizer as `rouge_score` calls one."""

    def tokenize(self, text: str) -> list[str]:
        from selfinstruct_local.kernels import encode  # imports numba

        return encode([text], tokenizer="unicode").row(0)


def has_label(case: Case, lang: Language) -> bool:
    """Whether an answer is compared with the reference as a whole.

    So it is where the data says that the task is classification. Where it says nothing, a reference of one line and at
    most `LABEL_TOKENS` is taken for a label.
    """
    if case.is_classification is not None:
        return case.is_classification
    reference = case.reference.strip()
    if "\n" in reference:
        return False
    tokens = _UnicodeTokens().tokenize(reference) if lang == "zh" else reference.split()
    return len(tokens) <= LABEL_TOKENS[lang]


def is_exact_match(answer: str, reference: str) -> bool:
    """Whether the two are the same but for case, punctuation and white space."""
    return _normalize(answer) == _normalize(reference)


def _normalize(text: str) -> str:
    """The text as SQuAD's evaluation compares it, articles kept as in Tk-Instruct; a text of marks alone stays.

    Punctuation is ASCII's, as there, and that of all scripts besides.
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
    """The percentile bootstrap interval of a mean (Efron 1979), always the same for the same values.

    Of the differences between two models on the same cases it is the paired bootstrap (Koehn 2004).

    Args:
        values: one a case, at least one.
    """
    stream = np.random.default_rng(BOOTSTRAP_SEED)
    table = np.asarray(values, dtype=np.float64)
    means = [table[stream.integers(0, table.size, table.size)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, PERCENT)
    return Interval(float(low), float(high))
