import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filters.rules import ALPACA_UNSUITABLE, apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.task import Instance, Task

LONG = " ".join(["word"] * 151)


def rule_of(instruction: str, task_input: str = "", output: str = "An answer.", rules: str = "alpaca") -> str:
    return apply_rules(rule_set(rules), Task.single(instruction, task_input, output)).rule


@pytest.mark.parametrize(
    ("instruction", "rule"),
    [
        ("Name three rivers", "too_short"),
        ("Name three long rivers", ""),
        (LONG, "too_long"),
        (LONG.removesuffix(" word"), ""),
        ("Write a program that sorts numbers", "asks_for_program"),
        ("write a program that sorts numbers", ""),
        ("# Name three long rivers", "starts_with_punctuation"),
        ("Étudiez ces trois longs textes", "starts_with_non_ascii"),
        ("Describe this Picture in detail", "unsuitable_word"),
        ("Describe this picturesque old town", ""),
        ("Tell people to go to bed early", "unsuitable_word"),
        ("Compose music for a slow film", "unsuitable_word"),
        ("", "too_short"),
    ],
)
def test_instruction_rules(instruction: str, rule: str) -> None:
    assert rule_of(instruction) == rule


def test_the_two_programs_differ_in_their_words() -> None:
    assert rule_of("Compose music for a slow film", rules="self-instruct") == ""
    assert rule_of("Describe this picture in detail", rules="self-instruct") == "unsuitable_word"
    assert rule_of("Hi", rules="none") == ""


@pytest.mark.parametrize(
    ("task_input", "output", "rule"),
    [
        ("", "", "empty_output"),
        ("", " \n ", "empty_output"),
        ("a b c", " a b c\n", "input_is_output"),
        ("", "name three long rivers", "output_is_instruction"),
        ("", "so on and " * 8, "degenerate_repetition"),
        ("very " * 20, "Fine.", "degenerate_repetition"),
        ("", "very very very good", ""),
    ],
)
def test_instance_rules(task_input: str, output: str, rule: str) -> None:
    assert rule_of("Name three long rivers", task_input, output) == rule


@pytest.mark.parametrize(
    ("instruction", "output", "rule"),
    [
        ("Is it better to save money?", "Options: (1). no, (2). yes.", "input_is_output"),
        ("Is it better to save money? ", "OPTIONS: 1 no; 2 yes", "input_is_output"),
        ("Is it better to save money?", "Option: (1). no, (2). yes.", ""),
        ("Is it better to save money?", "(2). yes", ""),
        ("Is the punctuation of it right?", "Options: (1). no, (2). yes.", ""),
        ("Make a list of the words", "Options: (1). no, (2). yes.", ""),
    ],
)
def test_a_question_is_not_answered_by_marks(instruction: str, output: str, rule: str) -> None:
    assert rule_of(instruction, "Options: (1). no, (2). yes", output) == rule


def test_every_instance_is_looked_at() -> None:
    task = Task("Name three long rivers", (Instance("", "fine"), Instance("x", "")))
    assert apply_rules(rule_set("alpaca"), task).rule == "empty_output"


def test_a_refusal_says_what_it_saw() -> None:
    verdict = apply_rules(rule_set("alpaca"), Task.single("Draw a large house now", "", "ok"))
    assert not verdict.keep
    assert "'Draw'" in verdict.detail


@given(st.text(alphabet="imageIMAGE ſK_x goto.", max_size=30))
def test_unsuitable_words_are_those_of_the_published_pattern(text: str) -> None:
    pattern = re.compile(rf"\b({'|'.join(ALPACA_UNSUITABLE)})\b", re.IGNORECASE)
    (rule,) = (rule for rule in rule_set("alpaca") if rule.name == "unsuitable_word")
    assert (rule.refuses(Task(text)) is not None) == (pattern.search(text) is not None)
