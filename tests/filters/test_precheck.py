import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from selfinstruct_local.filters.decide import Screen
from selfinstruct_local.filters.faults import _REFUSAL
from selfinstruct_local.filters.precheck import FEW, _search_odd, surely_kept
from selfinstruct_local.filters.rules import ALPACA_UNSUITABLE, Rule, apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS, Thresholds
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Instance, Task

PUBLISHED = ("alpaca", "self-instruct", "alpaca-2023", "self-instruct-2022")
GOOD = Task.single("Name three long rivers of Africa.", "", "The Nile, the Congo and the Niger.")

# Texts near the edge of every rule: white space of all kinds, marks, letters that are ASCII only in another case.
word = st.one_of(
    st.sampled_from(
        ["a", "b", "Go", "to", "image", "Maps", "go_to", "e-file", "Write", "program", "\u212a", "\u017fo"]
    ),
    st.sampled_from(
        ["the following", "this sentence:", "below", "[Name]", "[Image", "<your", "a text>", "lorem ipsum dolor"]
    ),
    st.sampled_from(
        [
            "I'm sorry,",
            "but I cannot",
            "assist.",
            "As an AI",
            "you do not",
            "your data.",
            "\u4f60\u597d",
            "\u043d\u0435\u0442",
        ]
    ),
    st.sampled_from(["go on.", "go on\n", "* go on", "8. go", "\u2022 no", "\u00b2", "\u2026"]),
    st.text(alphabet="abé“_.\x1c\x85\xa0\u2003K\u212a", max_size=3),
)
text = st.builds(
    lambda head, words, gap, tail: head + gap.join(words) + tail,
    st.sampled_from(["", " ", "\t", "#", "Write a program", "é", "\ud800"]),
    st.one_of(st.lists(word, max_size=9), st.builds(lambda part, n: part * n, st.lists(word, max_size=9), st.just(8))),
    st.sampled_from([" ", "  ", "\n", "\x1f", ""]),
    st.sampled_from(["", " ", "\n"]),
)


def of_parts(*parts: Sequence[str] | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts that are put together of one of each part's."""
    return st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.sampled_from(part) for part in parts)).map(
        "".join
    )


long_text = st.builds(lambda n: "w " * n, st.sampled_from([11, 12, 149, 150, 151]))
any_text = st.one_of(text, text, long_text, st.just("Name three long rivers"), st.just("name THREE long rivers "))
refusing = of_parts(
    ["I'm sorry, but I can't help", "_I cannot assist", "As an AI, I do not", "\u201cI am unable to create"], any_text
)
looping = st.lists(st.sampled_from(["go on", "so we", "I do", "2", "a b c", "no"]), max_size=24).map("\n".join)
# What breaks off, offers, asks back or says what a sum is, and what only looks so.
unfinished = of_parts(
    [
        *("1.", " 1) ", "1. Go home. 2. ", "The steps: 1. Go", "```", "```python\nif a:\n```", "`a`", "2+2=5, "),
        *("So 2 + 3 = 5 ", "$1-1=", "I'd be happy to help. ", "I am here to assist", "happy", "Who are you? "),
        *("\u201cyou\u201d", ""),
    ],
    st.one_of(any_text, st.just("")),
    [":", ": ", " =4", "=", "?", " you?", "```", " = 3 ", "your?\n", "I will love to help", "", "."],
)
# What should have been reworded, and what only looks so.
REWORDED = "We had to go to the sea again, and so we had gone"
reworded = st.builds(
    lambda opening, mark, end: f"{opening}{mark}{REWORDED}{mark}{end}",
    st.sampled_from(["", "It is: ", "Here you go: "]),
    st.sampled_from(["", '"', " "]),
    st.sampled_from(["", ".", " now."]),
)
SENTENCE = "Give the words that she had written"
# Copies of a sentence, with marks and spaces around them that are stripped before they are compared.
mark = st.sampled_from(['"', "'", ".", " ", "`", "\u201c", "\u201d"])
marks = st.one_of(st.lists(mark, max_size=4).map("".join), st.lists(mark, max_size=9).map(" ".join))
copying = of_parts(marks, [SENTENCE], ["", ".", " again", ", so"], marks)
output = st.one_of(any_text, any_text, refusing, looping, unfinished, copying, reworded)
copied_from = st.sampled_from(
    [SENTENCE, f"{SENTENCE}.", f"Say: {SENTENCE}. Go on.", f'Repeat "{SENTENCE}"', "Give three"]
)
rewording = st.sampled_from(
    ["Make it more concise now", "Please IMPROVE the line", "Reword_ it if you can", "Shorten it!"]
)
# What states a limit, a format, a language or labels, and what only looks so.
stating = st.sampled_from(
    [
        *(
            "Say it in two WORDS",
            "Go on in one sentence.",
            "Write_words in 1 go",
            "Give it as JSON",
            "Write Python code",
        ),
        *(
            "Answer now in Russian",
            "Convert 2 km to m",
            "Is it wet or dry?",
            "Sort it: Go, to or image.",
            "Say it in CSV",
        ),
    ]
)
instruction = st.one_of(
    any_text,
    any_text,
    copied_from,
    rewording,
    rewording,
    stating,
    st.just("Give three tips to somebody"),
    st.just("Is it so or not?"),
)
measures = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["confidence", "output_confidence", "judge.clear"]), st.sampled_from([-2.0, 2.0, 4.0])
    ),
)
given_input = st.one_of(st.just(""), any_text, copied_from, reworded, copying)
instances = st.one_of(
    st.lists(st.builds(Instance, given_input, output), max_size=2).map(tuple),
    st.builds(lambda given, written: (Instance(given, written),), given_input, output),
)
marked = st.sampled_from([None, None, True])
tasks = st.lists(st.builds(Task, instruction, instances, marked, measures=measures), min_size=1, max_size=8)
copies = st.builds(Task.single, copied_from, given_input, copying)
TRUNCATED = (
    "input_is_output",
    "cut_off",
    "copied",
    "clarifying_question",
    "not_reworded",
    "wrong_arithmetic",
    "failed_check",
)
limits = st.builds(
    Thresholds,
    max_repetition=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    max_foreign=st.sampled_from([0.0, 0.3]),
    refuse_refusals=st.booleans(),
    min_confidence=st.sampled_from([None, -1.0]),
    min_output_confidence=st.sampled_from([None, -1.0]),
)


def screened(rules: tuple[Rule, ...], batch: list[Task]) -> list[bool]:
    """What is sure of `batch`, whose few tasks are filled up to a batch that is looked at."""
    return surely_kept(rules, batch + [GOOD] * FEW)[: len(batch)]


@pytest.mark.parametrize("name", PUBLISHED)
@given(batch=tasks, limits=limits)
def test_what_is_sure_the_rules_keep(name: str, batch: list[Task], limits: Thresholds) -> None:
    rules = rule_set(name, "en", limits)
    for task, sure in zip(batch, screened(rules, batch), strict=True):
        if sure:
            assert apply_rules(rules, task).keep


@pytest.mark.parametrize("name", PUBLISHED)
@given(batch=tasks)
def test_a_batch_is_decided_as_one_by_one(name: str, batch: list[Task]) -> None:
    batch = [*batch, *[GOOD] * FEW]
    verdicts = Screen(rule_set(name)).judge(batch)
    assert verdicts == [apply_rules(rule_set(name), task) for task in batch]


# With one of the rules alone none of the others can hide what it does.
@pytest.mark.parametrize("name", TRUNCATED)
@given(batch=st.lists(st.one_of(st.builds(Task, instruction, instances, marked), copies), min_size=8, max_size=8))
def test_what_is_sure_each_rule_alone_keeps(name: str, batch: list[Task]) -> None:
    (rule,) = (each for each in rule_set("alpaca") if each.name == name)
    for task, sure in zip(batch, screened((rule,), batch), strict=True):
        if sure:
            assert apply_rules((rule,), task).keep


# Beyond ASCII what the pattern itself holds, and a mark that does not send a text to the rules at once.
refusal_characters = st.characters(max_codepoint=0x7F, include_characters=f"{_REFUSAL.pattern}\u201c")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(declining=st.lists(st.from_regex(_REFUSAL, alphabet=refusal_characters), min_size=4, max_size=4))
def test_no_refusal_is_sure(declining: list[str]) -> None:
    (rule,) = (each for each in rule_set("alpaca") if each.name == "refusal")
    batch = [GOOD._replace(instances=(Instance("", output),)) for output in declining]
    for task, sure in zip(batch, screened((rule,), batch), strict=True):
        assert not sure or apply_rules((rule,), task).keep


@pytest.mark.parametrize("name", TRUNCATED)
def test_the_texts_above_come_before_each_rule(name: str) -> None:
    (rule,) = (each for each in rule_set("alpaca") if each.name == name)
    one = st.builds(Task.single, instruction, given_input, output)
    assert find(one, lambda task: not apply_rules((rule,), task).keep, settings=settings(max_examples=20_000))


@pytest.mark.parametrize("name", PUBLISHED)
def test_nearly_every_plain_task_is_sure(name: str) -> None:
    seeds = [task._replace(instances=task.instances[:1]) for task in read_tasks(seed_file("en"))]
    plain = [task for task in seeds if task.instruction.isascii()]
    rules = rule_set(name)
    assert all(apply_rules(rules, task).keep for task in plain)
    assert sum(surely_kept(rules, plain)) > 0.9 * len(plain) > 100


@pytest.mark.parametrize("phrase", ALPACA_UNSUITABLE)
@pytest.mark.parametrize("around", ["We {}", "We saw the ({}), twice", "{} and so on now", "Is it a {}?"])
def test_no_unsuitable_word_is_sure(phrase: str, around: str) -> None:
    task = GOOD._replace(instruction=around.format(phrase.capitalize()))
    assert screened(rule_set("alpaca"), [task]) == [False]


@pytest.mark.parametrize(
    "task",
    [
        GOOD._replace(instruction="Name three rivers"),
        GOOD._replace(instruction="w " * 151),
        GOOD._replace(instruction="Write a programme of the day"),
        GOOD._replace(instruction="_Name three long rivers"),
        GOOD._replace(instances=(Instance("", "\x1c \n"),)),
        GOOD._replace(instances=(Instance("the nile", " the nile\n"),)),
        GOOD._replace(instances=(Instance("", GOOD.instruction.upper()),)),
        GOOD._replace(instances=(Instance("so on and " * 8, "Fine."),)),
        GOOD._replace(instances=(Instance("", "so on and " * 8),)),
        GOOD._replace(instances=(Instance("", ""), Instance("", "Nile"))),
        GOOD._replace(instances=(Instance("", "\xa0\u3000"),)),
        GOOD._replace(instances=(Instance("", "so\xa0on\xa0and\xa0" * 8),)),
        GOOD._replace(instances=(Instance("", "und für und für " * 8),)),
        Task.single("Name KKKK and its kin", "", "name \u212a\u212a\u212a\u212a and its kin"),
        Task(""),
        GOOD._replace(instruction="Shorten the following sentence"),
        GOOD._replace(instances=(Instance("", "I'm sorry, but I can't help with that."),)),
        GOOD._replace(instances=(Instance("", "Great question. However, I cannot provide medical advice."),)),
        GOOD._replace(instances=(Instance("", "\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u63d0\u4f9b"),)),
        GOOD._replace(instances=(Instance("[Map of Africa]", "The Nile."),)),
        GOOD._replace(instances=(Instance("", "The Nile, says [Your Name]."),)),
        GOOD._replace(instances=(Instance("", "\u0414\u0430, \u044d\u0442\u043e \u041d\u0438\u043b."),)),
        GOOD._replace(instances=(Instance("", "The Nile.\nThe Niger.\nThe Volta.\nThe Congo.\n" * 4),)),
        GOOD._replace(measures={"judge.clear": 2.0}),
        GOOD._replace(instances=(Instance("", "The Nile is the one I mean:"),)),
        GOOD._replace(instances=(Instance("", "1. The Nile."),)),
        GOOD._replace(instances=(Instance("", "These are my tips: 1. The Nile."),)),
        Task.single("Is it any of these?", "(1). no, (2). Yes", "(1) no; (2) yes."),
        GOOD._replace(instances=(Instance("", "The Nile.\n```\nThe Congo."),)),
        GOOD._replace(instances=(Instance("", "The Nile. Is that what you want?"),)),
        GOOD._replace(instances=(Instance("", "I would be glad to help!"),)),
        GOOD._replace(instances=(Instance("", "The Nile, since 2 + 2 = 5."),)),
        Task.single("Name the long river in one word.", "", "It is the Nile, the long river."),
        Task.single("Is the river long or short?", "", "The Nile."),
        Task("Is the river long or short?", (Instance("", "The Nile and the Congo and the Niger."),), True),
        Task.single("Give the long river as JSON.", "", '{"river": "Nile", "long": yes it is}'),
        Task.single("Make the sentence more concise.", REWORDED, f'Gladly: "{REWORDED}"'),
        Task.single("Make it rhyme: the Nile is a very long river.", "", '" the Nile is a very long river "'),
    ],
)
def test_what_a_rule_might_refuse_is_not_sure(task: Task) -> None:
    assert screened(rule_set("alpaca"), [task, GOOD]) == [False, True]


def test_a_rule_that_is_new_in_a_set_is_asked() -> None:
    more = (*rule_set("alpaca"), Rule("no_rivers", lambda task: "a river" if "river" in task.instruction else None))
    assert surely_kept(more, [GOOD] * FEW) == [False] * FEW


def test_what_was_measured_is_looked_at() -> None:
    rules = rule_set("alpaca", "en", DEFAULT_THRESHOLDS._replace(min_confidence=-1.0))
    sure = GOOD._replace(measures={"confidence": -0.5, "judge.clear": 4.0})
    assert screened(rules, [sure, sure._replace(measures={"confidence": -1.5})]) == [True, False]


def test_no_white_space_letter_or_digit_is_among_the_marks_that_are_not_odd() -> None:
    known = [each for each in map(chr, range(0x80, 0x110000)) if not _search_odd(each)]
    assert len(known) > 100
    assert not [each for each in known if each.isspace() or re.match(r"\w", each)]


def test_the_kelvin_sign_is_the_only_letter_that_lowers_into_ascii() -> None:
    beyond = map(chr, range(0x80, 0x110000))
    assert [each for each in beyond if each.lower().isascii()] == ["\u212a"]


def test_rules_that_are_not_covered_are_asked() -> None:
    batch = [GOOD] * FEW
    for name in PUBLISHED:
        assert surely_kept(rule_set(name), batch) == [True] * FEW
    assert surely_kept(rule_set("alpaca", "zh"), batch) == [False] * FEW
    assert surely_kept((), batch) == [False] * FEW
    assert surely_kept(rule_set("alpaca"), [Task("", (Instance("", ""),))] * FEW) == [False] * FEW
