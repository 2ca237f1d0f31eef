"""What breaks off, asks back, is copied or does not add up; and what looks like it and is right."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_local.filters import clarifying
from selfinstruct_local.filters.arithmetic import wrong_arithmetic
from selfinstruct_local.filters.clarifying import clarifying_question
from selfinstruct_local.filters.unfinished import READ_AS_PYTHON, copied, cut_off
from selfinstruct_local.task import Instance, Task

CHECKS = (cut_off, copied, clarifying_question, wrong_arithmetic)


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
        ("Sort the words by colour", "The red ones are these:"),
        ("Sort the words by colour", "They are sorted.\nRed:"),
        ("Describe a friend", "Name: Ann\nAge:"),
        ("Write a post about packing", "Packing is easy. The steps are as follows:"),
        ("Help me open a shop", "It takes a plan. Here's a guide to get you started: 1. Define your plan."),
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
        ("Give me tips for packing", "Roll your shirts, wear your boots and weigh it. Here are some tips to help."),
        ("Write a tweet about packing", "Packing made light! Here are some tips to help you pack."),
        ("Sort the words by colour", "Red: rose\n\nBlue: sky\nGreen:"),
        ("把词语按颜色分类", "红：玫瑰\n绿："),
        ("Help me open a shop", "Here's a guide: 1. Define your plan. 2. Find a room."),
        ("Help me open a shop", "Pay attention to the steps: 1.5 of them are dull."),
        ("Who won?", "They won by this score: 1. FC three, the others nil."),
        ("Choose one of the plans", "Of these plans: 1. the cheap one."),
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
        ("Write on from this: he had no time to read it.", "he had no time to read it", ""),
        ("I want to list all of the old kings. How do I begin?", "I want to list all of the old kings", ""),
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
        ("Correct the sentence: We had to go home by train.", "We had to go home by train.", ""),
        ("Rank these towns by size\n\nRome, Bonn, Ulm, Trier, Pisa, Tours", "Rome, Bonn, Ulm, Trier, Pisa, Tours", ""),
        ("Find the verb of “They ran all the way to us” and its tense", "They ran all the way to us", ""),
        ("“We had to go home by train.” Correct this, please.", "We had to go home by train.", ""),
        ("Insert a line break", "Rain fell outside,\nand the wind grew loud.", STORY),
        ("Read it aloud", "The old dog slept by the warm fire.", STORY),
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
        ("Plan a day in Rome", "I'd be delighted to plan it."),
        ("Plan a day in Rome", "I’m always very glad to help. What do you like?"),
        ("Can you help me write a story?", "I'd be happy to help. What is your hero's name? Tell me more."),
        ("计划去罗马一天的行程", "好的。您打算几月去？"),
        ("计划去罗马一天的行程", "很高兴为您计划行程。"),
        ("Plan a day in Rome", "To plan it I need to know a few things about you. How long will you stay?"),
        ("Recommend a laptop", "That sounds great! What will you mainly use the laptop for?"),
        ("Can you help me pick a bike?", "Of course! What terrain is it for? What is the budget? And the colour?"),
        ("Can you help me pick a bike?", "To help you, I need to know:\n1. What is your budget?\n2. Do you race?"),
        ("Help me plan a trip", "I'd be glad to help! Could you tell me:\n- Where do you go?\n- When do you leave?"),
        ("Can you help me edit my essay?", "Sure! What is your essay about?"),
    ],
)
def test_what_asks_back_is_seen(instruction: str, output: str) -> None:
    assert clarifying_question(task(instruction, output))


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
        ("I passed my exam today", "I am very glad to hear it!"),
        # questions that belong to what was asked for
        ("Prepare an exercise on calm", "Sit down.\n1. How do you feel?\n2- Do you feel better now?"),
        ("Can you suggest an icebreaker?", "Each one answers: 1. What is your hobby? 2. Where are you from?"),
        ("How can I find my way in life?", "Write it down.\n- What do you enjoy?\n- What are you good at?"),
        ("Can you make up a sketch?", "Ann: Are you well?\nTom: Are you?"),
        ("How do I greet a guest?", "Say “How was your trip?” or “May I help you?” and smile."),
        ("How do I greet my boss?", "Say: 'How are you? Did you sleep well?'"),
        ("How do I greet my boss?", "> How are you?\n> What's new?"),
        ("我想练习口语", "一、您叫什么名字？\n二、您住在哪里？"),
        ("Give an icebreaker", "If you could travel anywhere, where would you go?"),
        ("Can you think of a trip for us?", "How about a picnic by the lake, where you can swim?"),
        # a text to work on that asks
        ("Make this more direct: could you help me", "Will you help me?"),
        ('Edit this to be direct: "I wonder if you could help me."', "Can you help me?"),
        # the work is done, and a question or an offer follows
        ("What should I look at in a shoe?", "Try the size on. Look at the sole. Does it last as long as you need?"),
        ("Describe the flu", "Fever, cough and aches that last for a week. Would you like to know more?"),
        (
            "How will you treat a customer?",
            "I hear them out, find what went wrong and thank them. If needed, I am happy to help.",
        ),
    ],
)
def test_what_does_not_ask_back_is_left_alone(instruction: str, output: str) -> None:
    assert clarifying_question(task(instruction, output)) is None


def test_an_input_that_asks_may_be_answered_by_a_question() -> None:
    given = "Do you have to smoke?"
    assert clarifying_question(task("Make it polite", "Would you mind not smoking?", given)) is None
    assert clarifying_question(task("Make it polite", "What would you like it to say?", "Stop smoking."))


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


# The same in one pattern: plain, and of quadratic time.
PLAIN_QUESTION = re.compile(
    r"(?<![\w\"“'])(?:you|your|you['’](?:d|re|ve|ll))\b[^\"”]*\?\s*$|[你您][^”」]*[？?]\s*$", re.IGNORECASE
)
addressed = st.lists(
    st.sampled_from(["you", "Your", "you’re", "你", " ", "x", '"', "”", "“", "'", "」", "?", "？", "\n"]), max_size=12
).map("".join)


@settings(max_examples=1000)
@given(st.one_of(addressed, texts))
def test_questions_back_are_those_of_the_plain_pattern(text: str) -> None:
    assert clarifying._is_question_back(text) == (PLAIN_QUESTION.search(text) is not None)


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


@pytest.mark.parametrize(("before", "seen"), [(0, True), (READ_AS_PYTHON, False)])
def test_python_is_parsed_in_the_beginning_of_an_output(before: int, seen: bool) -> None:  # noqa: FBT001
    output = f"{'All is well. ' * (before // 10)}```python\nprint((\n```"
    assert bool(cut_off(Task.single("Print a thing", "", output))) == seen
