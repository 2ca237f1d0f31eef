"""Instructions with more numbers than a small model can deal with."""

import pytest

from selfinstruct_local.filter.limits import DEFAULT_LIMITS
from selfinstruct_local.filter.quantities import ManyNumbers
from selfinstruct_local.filter.rules import apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.tasks import Task


@pytest.mark.parametrize(
    ("instruction", "numbers"),
    [
        ("How can a team of 15 become one of 25?", "15, 25"),
        ("How can a city of 1,000,000 save 2.5% by 2030?", "1,000,000, 2.5"),
        ("How can $150,000 be spent?", "150,000"),
        ("十五加15是多少？", "15"),
    ],
)
def test_numbers_are_told(instruction: str, numbers: str) -> None:
    seen = ManyNumbers(0)(Task.single(instruction, "", "So."))
    assert seen == f"the instruction has the numbers {numbers}, at most 0 wanted"
    assert ManyNumbers(numbers.count(", ") + 1)(Task.single(instruction, "", "So.")) is None


@pytest.mark.parametrize(
    "instruction",
    [
        "How did COVID-19 change work in 2020?",
        "Explain 3D prints and the 7th art of the 21st century.",
        "Why is help that is there 24/7 good?",
        "Why is it good to have one friend or two?",
        "",
    ],
)
def test_years_and_names_are_no_numbers(instruction: str) -> None:
    assert ManyNumbers(0)(Task.single(instruction, "3, 1, 2", "15 of 25.")) is None


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_they_are_refused_where_somebody_asks_for_it(lang: str) -> None:
    task = Task.single("How can a team of 15 win?" if lang == "en" else "15个人怎样才能赢得比赛？", "", "15" * 3)
    limits = DEFAULT_LIMITS._replace(max_numbers=0)
    assert apply_rules(rule_set("alpaca", lang, limits), task).rule == "many_numbers"
    assert apply_rules(rule_set("alpaca", lang), task).keep
