"""What breaks off, asks back, is copied or does not add up; and what looks like it and is right."""

import random
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_local.filter import unfinished
from selfinstruct_local.filter.unfinished import asks_back, copied, cut_off, wrong_arithmetic
from selfinstruct_local.tasks import Instance, Task

CHECKS = (cut_off, copied, asks_back, wrong_arithmetic)


def task(instruction: str, output: str, given_input: str = "") -> Task:
    return Task.single(instruction, given_input, output)


# --- breaking off ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Explain how tea is made", "The steps are as follows:"),
        ("Explain how tea is made", "The steps are as follows:\n"),
        ("解释怎样泡茶", "步骤如下："),
        ("Give three tips for sleep", "1. Go to bed early."),
        ("List ways to save water", " 1) Take shorter showers. There were 12 of us."),
        ("列出几个节约用水的办法", "1、缩短淋浴时间。"),
        ("List ten ways to relax", "Sure, here are ten of them:\n\n1. Yoga: it calms the mind."),
        ("Give me tips for packing", "Packing is easy. Here's a simple guide to help you pack."),
        ("Explain how to pack", "Below are the steps!"),
        ("Print the numbers to 3", "```\nfor n in 1..3"),
        ("Print the numbers to 3", "Here:\n```python\nfor n in range(3):\nprint(n)\n```"),
        ("Print the numbers to 3", "```PY\nprint('1)\n```"),
        ("Print a null", "```python\nprint('\0')\n```"),
    ],
)
def test_what_breaks_off_is_seen(instruction: str, output: str) -> None:
    assert cut_off(task(instruction, output))


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Explain how tea is made", "The steps: boil, steep, pour."),
        ("Write the salutation of a letter", "Dear Sir or Madam:"),
        ("给信写一个开头", "尊敬的先生："),
        ("Which line of code is missing?", "for n in range(3):"),
        ("Give three tips for sleep", "1. Go to bed early.\n2. Get up early.\n3. Read."),
        ("List ways to save water", "1) Shower less. 2) Water less."),
        ("Give three tips for sleep", "1.5 hours less of screens."),
        ("列出几个节约用水的办法", "1、缩短淋浴时间。\n2、少浇水。"),
        ("List ten ways to relax", "Sure:\n\n1. Yoga.\n2. Sleep."),
        ("Give me tips for packing", "Here are some tips: roll your shirts and leave your boots."),
        ("Where is the guide?", "Here is the cat."),
        ("Choose one of the three words", "1. cat"),
        ("Say when Rome was founded", "1. It was founded in 753 BC."),
        ("Print the numbers to 3", "```python\n\n\n    for n in range(3):\n        print(n)\n```"),
        ("Print the numbers to 3", "```python\r\nprint(1)\r\n```\n```\nnot Python (\n```"),
        ("Print the numbers to 3", "```python\n>>> print(1\n```"),
        ("Print the numbers to 3", "```python\nprint 'old'\nfor n in range(3):\nprint n\n```"),
        ("Print the numbers to 3", "```python\nfor n in (\n...\n```"),
        ("Print the numbers to 3", "Use `print(n`."),
        ("Print a deep sum", f"```python\n{'1+' * 50_000}1\n```"),
    ],
)
def test_what_ends_is_left_alone(instruction: str, output: str) -> None:
    assert cut_off(task(instruction, output)) is None


def test_every_instance_is_looked_at() -> None:
    whole, torn = Instance("", "Fine."), Instance("", "As follows:")
    assert cut_off(Task("Explain how tea is made", (whole, torn)))
    assert cut_off(Task("Explain how tea is made", (whole, whole))) is None
    assert all(check(Task("Explain how tea is made")) is None for check in CHECKS)


# --- copying --------------------------------------------------------------------------------------------------------

STORY = "The old dog slept by the warm fire. Rain fell outside, and the wind grew loud."


@pytest.mark.parametrize(
    ("instruction", "output", "given_input"),
    [
        ("Say this in French: the cat sat on the mat.", "The cat sat on the mat.".replace("The", "the"), ""),
        ("Continue: 'She had never seen so much snow.'", "She had never seen so much snow", ""),
        ("Make the tone of the text cheerful", "The old dog slept by the warm fire.", STORY),
        ("Make the tone of the text cheerful", '"The old dog slept by the warm fire."', STORY),
        ("Make the tone of the text cheerful", '" The old dog slept by the warm fire "', STORY),
        ("Make the tone of the text cheerful", "The old dog  slept\nby the warm fire", STORY),
        ("Make the tone of the text cheerful", "Rain fell outside, and the wind grew loud.", STORY),
    ],
)
def test_a_copied_sentence_is_seen(instruction: str, output: str, given_input: str) -> None:
    assert copied(task(instruction, output, given_input))


@pytest.mark.parametrize(
    ("instruction", "output", "given_input"),
    [
        ("Make the tone of the text cheerful", "The old dog dozed by the warm fire.", STORY),
        ("Make the tone of the text cheerful", "dog slept by the warm fire. Rain", STORY),
        ("Make the tone of the text cheerful", "old dog slept by the warm fire", STORY),
        ("Make the tone of the text cheerful", "The old dog slept.", STORY),
        ("Extract the sentence about the dog", "The old dog slept by the warm fire.", STORY),
        ("Which sentence is about an animal?", "The old dog slept by the warm fire.", STORY),
        ("找出写狗的句子", "The old dog slept by the warm fire.", STORY),
        ("Choose one: the dog sleeps by the fire, or: the cat sits on the mat.", "the cat sits on the mat", ""),
        ("把这句话改得活泼一些", "那只老狗睡在火边。", "那只老狗睡在火边。"),  # no six words between spaces
    ],
)
def test_what_is_not_or_may_be_copied_is_left_alone(instruction: str, output: str, given_input: str) -> None:
    assert copied(task(instruction, output, given_input)) is None


# --- asking back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Plan a day in Rome", "Sure. How long will you stay in Rome?"),
        ("Plan a day in Rome", "Sure. What is your budget?  "),
        ("Can you help me plan a day in Rome?", "What are your interests? Then I can plan it."),
        ("Plan a day in Rome", "I'd be happy to help you with that!"),
        ("Plan a day in Rome", "I am here to assist."),
        ("Plan a day in Rome", "I’m always very glad to help. What do you like?"),
        ("Can you help me write a story?", "I'd be happy to help. What is your hero's name? Tell me more."),
        ("计划去罗马一天的行程", "好的。您打算几月去？"),
        ("计划去罗马一天的行程", "很高兴为您计划行程。"),
    ],
)
def test_what_asks_back_is_seen(instruction: str, output: str) -> None:
    assert asks_back(task(instruction, output))


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("Plan a day in Rome", "Start at the Forum, then eat. You will love it."),
        ("Plan a day in Rome", "Why not start at the Forum?"),
        ("Plan a day in Rome", "Do you like walks? Start at the Forum. Then eat."),
        ("Plan a day in Rome", 'The guide asks: "Are you tired?"'),
        ("Plan a day in Rome", "Ask the guide “where are you from?” and walk on. Is it far?"),
        ("Write a question for a guest", "What is your name?"),
        ("Write an e-mail to a hotel", "I'd be happy to help. Can you book a room?"),
        ("Can you write a hotel's reply?", "Dear guest, I'd be happy to help. Would you like a room?"),
        ("Compose a sentence with a pronoun", "Are you there?"),
        ("Plan a day in Rome", "I'd be happy to help! Start at the Forum. Eat. Rest."),
        ("写一句问候", "您好吗？"),
        ("计划去罗马一天的行程", "先去广场，再去吃饭，你会喜欢的。"),
        ("计划去罗马一天的行程", "向导说：“你累吗？”然后继续走，好吗？".replace("你", "他")),
        ("Plan a day in Rome", "The here and now."),
    ],
)
def test_what_does_not_ask_back_is_left_alone(instruction: str, output: str) -> None:
    assert asks_back(task(instruction, output)) is None


# --- sums -----------------------------------------------------------------------------------------------------------


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
    terms, text, exact = [], "", ""
    for number in range(stream.randrange(2, 6)):
        value = Fraction(stream.randrange(1, 10 ** stream.randrange(1, 6)), 10**places)
        if number:
            sign = stream.choice("+-*/×÷x")
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


# --- all of them ----------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *("1", "2.", "1.", "1)", "22,333", "0.5", "+", "-", "*", "/", "×", "÷", " x ", "=", "^", "(", "$", "€"),
        *("you", "your", "I'd be happy to help", "I", "here", "?", "？", "你", "高兴为你", '"', "”", "“", "」", "'"),
        *("```", "```python\n", "\n", ":", "：", ". ", "! ", "。", "print ", ">>>", "\t", " ", "\0", "\ud800", "\x85"),
        *("the cat sat on the mat", "list", "if a:", "{", "[", "٣", "３", "\u212a", "é"),
    ]
)
texts = st.lists(pieces, max_size=40).map("".join)


@given(st.one_of(texts, st.text()), st.one_of(texts, st.text()), st.one_of(texts, st.text()))
def test_whatever_stands_there_they_give_an_answer(instruction: str, given_input: str, output: str) -> None:
    for check in CHECKS:
        seen = check(Task.single(instruction, given_input, output))
        assert seen is None or seen.startswith("an output ")


# The same in one pattern each: plain, and of quadratic time.
PLAIN_QUESTION = re.compile(
    r"(?<![\w\"“'])(?:you|your|you['’](?:d|re|ve|ll))\b[^\"”]*\?\s*$|[你您][^”」]*[？?]\s*$", re.IGNORECASE
)
PLAIN_EQUATION = re.compile(
    rf"(?<![\w.,])[$€£]?({unfinished._NUMBER}(?:{unfinished._SIGN}[$€£]?{unfinished._NUMBER})+)"
    rf"\s*=\s*[$€£]?(-?{unfinished._NUMBER})"
    r"(?!\d|[.,]\d|\s*[-+*/×÷^%=(]|\sx\s|[A-Za-z]*\^|\s*(?:r\b|rem|with|余|…))",
    re.IGNORECASE,
)
sums = st.text(alphabet="0123,.+-*/×÷x =^$r\n", max_size=30)
addressed = st.lists(
    st.sampled_from(["you", "Your", "you’re", "你", " ", "x", '"', "”", "“", "'", "」", "?", "？", "\n"]), max_size=12
).map("".join)


@settings(max_examples=1000)
@given(st.one_of(sums, texts))
def test_equations_are_those_of_the_plain_pattern(text: str) -> None:
    found = [match for match in unfinished._EQUATION.finditer(text) if match[2] is not None]
    assert [match.span() for match in found] == [match.span() for match in PLAIN_EQUATION.finditer(text)]


@settings(max_examples=1000)
@given(st.one_of(addressed, texts))
def test_questions_back_are_those_of_the_plain_pattern(text: str) -> None:
    assert unfinished._is_question_back(text) == (PLAIN_QUESTION.search(text) is not None)


LONG = 100_000
ADVERSARIAL = {
    "chain": "1+" * (LONG // 2) + "1 = x",
    "chain of money": "=" + "$1,000.5 + " * (LONG // 11),
    "equations": "1+1=2+" * (LONG // 6),
    "digits": "=" + "1" * LONG,
    "a long number told": "1+1=" + "1" * LONG,
    "commas": "=" + "1,111" * (LONG // 5),
    "spaces in a sum": "= 1" + " " * LONG + "1",
    "you, quoted": "you " * (LONG // 4) + '" ?',
    "you, no end": "? " + "you " * (LONG // 4),
    "you in Chinese": "你" * LONG + "” ?",
    "question marks": "?" * LONG,
    "questions": "you? " * (LONG // 5),
    "offers": "I be " * (LONG // 5) + "happy?",
    "an offer drawn out": "I " + "be " * (LONG // 3) + "happy?",
    "colons": ":" * LONG,
    "items": "1. " + "2 " * (LONG // 2),
    "Python of line breaks": "```\n```python" + "\n" * LONG + "x",
    "Python of empty lines": "```python\nx\n" + "\n" * LONG + "y\n```",
    "Python of blanks": "```python\n" + " " * LONG + "y\n```",
    "fences": "```python\n" * (LONG // 10),
    "brackets": "```python\n" + "(" * LONG + "\n```",
    "signs": "```python\n" + "-" * LONG + "1\n```",
    "sums": "```python\n" + "1+" * (LONG // 2) + "1\n```",
    "lambdas": "```python\n" + "lambda:" * (LONG // 7) + "1\n```",
    "choices": "```python\nif a:\n  b\n" + "elif a:\n  b\n" * (LONG // 12) + "\n```",
    "one word": "the " * (LONG // 4),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_long_texts_take_no_long_time(name: str) -> None:
    text = ADVERSARIAL[name]
    tasks = [
        Task.single("Give three things that matter", text, text),
        Task.single("Give three things that matter", f"{text} end", text),
        Task.single(text, "", text[: LONG // 2]),
    ]
    for check in CHECKS:
        for each in tasks:
            start = time.process_time()
            check(each)
            assert time.process_time() - start < 1, check.__name__
