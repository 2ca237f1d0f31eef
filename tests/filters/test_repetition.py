import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filters.repetition import could_loop, latin_letters, recurring_share, repeated_share
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS
from selfinstruct_local.task import Task


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ("a " * 12, 11 / 12),
        ("a b " * 6, 10 / 12),
        ("a b c d e f g h i j k l", 0.0),
        ("a " * 11, 0.0),
        ("x y z " + "a " * 9, 8 / 12),
        ("0 " * 12, 11 / 12),
        ("- go " * 6, 10 / 12),
        ("| | " * 6, 0.0),  # an empty table
        ("* * # " * 6, 0.0),  # a pattern
        ("9 + " * 6 + "9 = 7 x 9", 0.0),
        ("| | " * 2 + "a b " * 6, 10 / 16),
    ],
)
def test_repeated_share(words: str, share: float) -> None:
    assert repeated_share(words.split()) == pytest.approx(share)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 12), st.integers(0, 30), st.floats(0, 1))
def test_what_is_asked_first_loses_no_loop(noise: list[str], period: int, times: int, limit: float) -> None:
    words = noise[:10] + noise[:period] * times + noise[10:]
    if repeated_share(words) > limit:
        assert could_loop(words, limit=limit)


def plain_repeated_share(words: list[str]) -> float:
    best = 0
    for period in range(1, 9):
        for start in range(period, len(words)):
            end = start
            while end < len(words) and words[end] == words[end - period]:
                end += 1
            best = max(best, end - start)
    return best / len(words) if len(words) >= 12 else 0.0


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_repeated_share_is_that_of_its_plain_twin(words: list[str]) -> None:
    assert repeated_share(words) == plain_repeated_share(words)


INTERVIEW = " ".join(
    ["1. Research the company. 2. Practice. 3. Dress well today."] + [f"{n}. Dress well today." for n in range(4, 9)]
)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (INTERVIEW, 15 / 22),
        ("* Google * Apple * Tesla * Intel " * 4, 12 / 16),
        ("* Yes * No " * 8, 0.0),
        ("One. Two. Three. Four. Five. Six.", 0.0),
        ("\n".join(f"{n} x 7 = {7 * n}" for n in range(1, 20)), 0.0),
        ("<tr>\n<td>Name of it</td>\n<td>Name of it</td>\n</tr>\n" * 5, 0.0),
    ],
)
def test_recurring_share(text: str, share: float) -> None:
    assert recurring_share(text) == pytest.approx(share)


piece = st.lists(st.sampled_from(["a", "b", "go", "7", "so"]), max_size=4).map(" ".join)
looping = st.lists(st.sampled_from(["go on", "a b a", "so", "x", "7", "we do"]) | piece, max_size=30).map("\n".join)


@given(looping)
def test_what_recurs_has_few_different_words(text: str) -> None:
    words = latin_letters(text)
    assert len(set(words)) <= len(words) * (1 - recurring_share(text)) + 1e-9


def test_the_limit_decides() -> None:
    task = Task.single("Say how to get ready for an interview", "", INTERVIEW)
    assert apply_rules(rule_set("alpaca"), task).rule == "degenerate_repetition"
    lax = rule_set("alpaca", "en", DEFAULT_THRESHOLDS._replace(max_repetition=0.7))
    assert apply_rules(lax, task).keep


def test_chinese_items_that_come_again() -> None:
    items = "多喝热水。早点睡觉。少吃辣的。按时运动。" * 4
    assert apply_rules(rule_set("alpaca", "zh"), Task.single("给感冒的人四条建议。", "", items)).rule == (
        "degenerate_repetition"
    )
