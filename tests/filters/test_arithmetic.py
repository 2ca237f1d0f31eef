"""Sums that an output gets wrong, and what looks like it and is right."""

import random
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_local.filters import arithmetic
from selfinstruct_local.filters.arithmetic import wrong_arithmetic
from selfinstruct_local.task import Task


def task(instruction: str, output: str) -> Task:
    return Task.single(instruction, "", output)


@pytest.mark.parametrize(
    "output",
    [
        "2 + 2 = 5",
        "It costs $1,200 + $300 = $1,600 in all.",
        "3 x 4 = 13",
        "3 × 4 = 13，对。",
        "2 + 3 * 4 = 20",
        "11 ÷ 4 = 2.",
        "100 / 3 = 33.9",
        "€2.50 * 3 = €8.50",
        "5 - 8 = 3",
        "First 1+1=2, then 2+2=5.",
        "答案：12-5=8。",
        "108/6=18.5",
        "1 / 4 = 68",
        "1/3 = 0.5",
        "Step 3: 2 + 2 = 5",
        "2 + 2 = 5\n3 + 3 = 6",
    ],
)
def test_wrong_sums_are_seen(output: str) -> None:
    assert wrong_arithmetic(task("Work it out", output))


@pytest.mark.parametrize(
    "output",
    [
        "2 + 2 = 4",
        "$1,200 + $300 = $1,500",
        "2 + 3 * 4 = 14",
        "10 ÷ 4 = 2.5",
        "10 ÷ 4 = 3",
        "100 / 3 = 33.33",
        "100 / 3 = 33",
        "10 / 3 = 3 r 1",
        "10 / 3 = 3 remainder 1",
        "10÷3=3余1",
        "5 - 8 = -3",
        "1 / 0 = 5",
        "x + 2 + 2 = 5",
        "2x + 3 + 1 = 9",
        "2 * 3 + 4 = 5 * 2",
        "1 + 1 = 2 + 1 = 3",
        "4 - 2 + 1 = 3^1",
        "(1 + 2) * 3 + 1 = 11",
        "2^3 + 1 = 9",
        "v1.2.3 + 4 = 9",
        "1990-1995 = five years",
        "3 + 4 = 1,0000",
        "a = 3",
        # notation: tempo, metre, scores, ratings, idioms
        "Q:3/8=112",
        "Tempo 1/4 = 96",
        "4/4=120",
        "24/7=365",
        "8/10=4 stars",
        "9/10 = 4.5",
        "10/10=5",
        "16:9=2",
        # dates, times, ranges, paths, phone numbers, versions
        "12/25=359",
        "12/25/2021=4",
        "2021-10-15=288",
        "05-10=3",
        "10:30 + 2 = 12:30",
        "at 10:30 + 2 = 13",
        "Ages 5-10 = 3 cups, 11-18=4",
        "/srv/4/2=3",
        "555-123-4567=2",
        "v2.1-3=5",
        "0101 + 0011 = 1000",
        # part of more
        "15% of 20 + 5 = 8",
        "5 1/2 + 3 = 8.5",
        "3 + 5 1/2 = 8.5",
        "√9 + 1 = 4",
        "log 100 + 1 = 3",
        # what follows is another line
        "5 x 9 =\n2. 9 x 5 =",
        "Won 3\n- 2 = lost, drawn 1\n- 1 = 4",
        "9" * 5000 + "/2=3",
    ],
)
def test_right_sums_and_what_is_none_are_left_alone(output: str) -> None:
    assert wrong_arithmetic(task("Work it out", output)) is None


@pytest.mark.parametrize(
    "instruction", ["Say something false", "Is this correct: 2 + 2?", "Add in binary", "检查这道题", "Tell a joke"]
)
def test_who_asks_for_a_wrong_sum_gets_one(instruction: str) -> None:
    assert wrong_arithmetic(task(instruction, "1 + 1 = 10")) is None


def written(value: Fraction, stream: random.Random, places: int, currency: str) -> str:
    comma = "," if stream.random() < 0.5 else ""
    return f"{'-' if value < 0 else ''}{currency}{float(abs(value)):{comma}.{places}f}"


@given(st.integers(0, 2**32))
def test_chains_against_exact_fractions(seed: int) -> None:
    stream = random.Random(seed)
    currency = stream.choice(["", "", "$", "€"])
    places = stream.choice([0, 0, 1, 2])
    tight = stream.choice(["", " "])
    signs = "+-*/×÷x" if tight else "+*×÷x"  # without spaces, "-" and "/" may also write a range or a date
    terms, text, exact = [], "", ""
    for number in range(stream.randrange(2, 6)):
        value = Fraction(stream.randrange(1, 10 ** stream.randrange(1, 6)), 10**places)
        if number:
            sign = stream.choice(signs)
            text += " x " if sign == "x" else f"{tight}{sign}{tight}"
            exact += {"×": "*", "x": "*", "÷": "/"}.get(sign, sign)
        terms.append(value)
        text += written(value, stream, places, currency)
        exact += f"terms[{number}]"
    value = eval(exact, {"terms": terms})  # noqa: S307 - Python's own precedence is the oracle
    told = written(value, stream, 2, "")
    right = task("Work it out", f"So {text} = {told}.")
    assert wrong_arithmetic(right) is None, right.output
    wrong = value + stream.choice([-1, 1]) * (abs(value) * Fraction(3, 100) + 1)
    false = task("Work it out", f"So {text} = {written(wrong, stream, 2, '')}.")
    assert wrong_arithmetic(false), false.output


# The same in one pattern: plain, and of quadratic time.
PLAIN_EQUATION = re.compile(
    rf"(?<![\w.,])[$€£]?({arithmetic._NUMBER}(?:{arithmetic._SIGN}[$€£]?{arithmetic._NUMBER})+)"
    rf"{arithmetic._SPACE}*={arithmetic._SPACE}*[$€£]?(-?{arithmetic._NUMBER})"
    r"(?!\d|[.,:]\d|\s*[-+*/×÷^%=(]|\sx\s|[A-Za-z]*\^|\s*(?:r\b|rem|with|余|…))",
    re.IGNORECASE,
)
sums = st.text(alphabet="0123,.+-*/×÷x =^$r\n", max_size=30)


@settings(max_examples=1000)
@given(st.one_of(sums, st.text()))
def test_equations_are_those_of_the_plain_pattern(text: str) -> None:
    found = [match for match in arithmetic._EQUATION.finditer(text) if match[2] is not None]
    assert [match.span() for match in found] == [match.span() for match in PLAIN_EQUATION.finditer(text)]
