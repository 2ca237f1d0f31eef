"""ROUGE-L against the library and by hand, labels, and intervals that hold what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.scores import RougeL, bootstrap, has_label, is_exact_match
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.sources import TrainingSample

WORDS = ["the", "cat", "cats", "sat", "sitting", "on", "mats", "a", "Mat", ",", "."]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def case(reference: str, told: object = None) -> Case:
    return Case(TrainingSample((Turn("user", "Name it."), Turn("assistant", reference))), told)  # type: ignore[arg-type]  # a boolean or None


@given(answer=SENTENCES, reference=SENTENCES)
def test_english_is_scored_as_the_published_evaluation_scores_it(answer: str, reference: str) -> None:
    published = RougeScorer(["rougeL"], use_stemmer=True).score(reference, answer)["rougeL"].fmeasure
    assert RougeL("en")(answer, reference) == published


def test_english_words_are_stemmed() -> None:
    # "river" and "flow" of three words and of two
    assert RougeL("en")("Rivers flowing slowly", "river flows") == pytest.approx(0.8)


def test_chinese_is_scored_by_the_character() -> None:
    # three of four characters each
    assert RougeL("zh")("写一首歌", "写一首诗。") == pytest.approx(3 / 4)
    assert RougeL("zh")("", "写一首诗") == 0.0
    assert RougeL("en")("写一首歌", "写一首歌") == 0.0  # no token there


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Positive.", "positive"),
        ("  very   Positive\n", "very positive"),
        ("正面。", "正面"),
        ("“正面”", "正面"),
        ("don't", "dont"),
        ("+", "+"),
    ],
)
def test_case_marks_and_space_do_not_count(answer: str, reference: str) -> None:
    assert is_exact_match(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("Positive", "Negative"), ("the cat", "cat"), ("Positive\nNegative", "Positive"), ("+", "-"), ("", "yes")],
)
def test_all_else_does(answer: str, reference: str) -> None:
    assert not is_exact_match(answer, reference)


@pytest.mark.parametrize(
    ("reference", "told", "lang", "expected"),
    [
        ("Positive", None, "en", True),
        ("New York City", None, "en", True),
        ("the city of New York", None, "en", False),
        ("yes\nno", None, "en", False),
        ("the city of New York", True, "en", True),
        ("Positive", False, "en", False),
        ("体育新闻", None, "zh", True),
        ("今天的天气非常好", None, "zh", False),
    ],
)
def test_what_is_a_label(reference: str, told: object, lang: str, expected: object) -> None:
    assert has_label(case(reference, told), lang) is expected  # type: ignore[arg-type]  # a language


def test_an_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0.4, 0.1, 200).tolist()
    low, high = bootstrap(values)
    error = 1.96 * np.std(values) / np.sqrt(len(values))
    assert low == pytest.approx(np.mean(values) - error, abs=0.003)
    assert high == pytest.approx(np.mean(values) + error, abs=0.003)
    assert bootstrap(values) == (low, high)
    assert bootstrap([0.25] * 7) == (0.25, 0.25)
    assert bootstrap([0.5]) == (0.5, 0.5)


def test_pairs_tell_what_means_alone_do_not() -> None:
    # Cases differ much, the two models by the same little on each.
    base = np.random.default_rng(2).uniform(0, 1, 50)
    better = base + 0.02
    assert bootstrap(base.tolist()).high > bootstrap(better.tolist()).low
    assert bootstrap((better - base).tolist()).low == pytest.approx(0.02)
