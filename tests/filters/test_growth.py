"""Every rule takes time in proportion to the length of a record, whatever its texts are, and however many instances.

What is measured is growth: CPU time at one length and at four times that length. Linear work takes four times as long,
quadratic work sixteen times.
"""

import gc
import re
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from selfinstruct_local.filters.echo import COMPARED, echoes
from selfinstruct_local.filters.precheck import FEW, surely_kept
from selfinstruct_local.filters.rules import Rule
from selfinstruct_local.filters.rulesets import PUBLISHED, RULE_SETS, rule_set
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS
from selfinstruct_local.generate.profiles.paragraph import has_items, needs_lines
from selfinstruct_local.generate.rewriting.integrity import CHECKS, is_code, language_of, not_translated
from selfinstruct_local.kernels import TokenizerName, encode
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.seedfiles.text import PLACEHOLDER, PROMPT_MARK, cleaned, mostly_han, text_faults
from selfinstruct_local.task import Instance, Task
from tests.kernels.oracles import SOAK

# Repeated to the length that is wanted.
PIECES = (
    *("2718281828", "\u5c71\u6c34\u98ce\u96f2", "1. ", "1) ", " \n", "\n\x0b", "\u3000\n", "b@", "b@c.d ", "x", "kkk "),
    *(
        "(",
        "((a",
        "[",
        "[your ",
        "[insert ",
        "\uff08\u586b\u5199",
        "{",
        '{"a": ',
        "<",
        "<p> ",
        "</",
        '"',
        "\u201c",
        "'",
    ),
    *("`", "```", "```py\n", "`a`b", "$", "$a$b", "=", "====\n", "1+1=2+", "7 - ", "1,111", "1.1", "a, ", "b,", ", c"),
    *("the same ", "tea and tea, ", "https://a.b/", "Q: why? ", "? ", "...", "! ", "- ", "---\n", "_", "*", "\\", "|"),
    *("\U0001f600", "\u0301\u0316", "e\u0301", "\u0e01", "\u0414", "\ud55c", "\u4e00", "\u4ebf", "\xd7", "X", "\u6708"),
    *(
        "twenty-",
        "this ",
        "the given b-",
        "here is a ",
        "guide list ",
        "I so so ",
        "as a b-c ",
        "Output ",
        "a b = ",
        "%(",
    ),
    *(
        "[Insert name] ",
        "[reason] [name] ",
        "Dear a, ",
        "\nBest  ",
        "5- you? ",
        "1. you? ",
        "Tell me. ",
        "How about ",
        " 'you",
        " '",
        "「",
        "1/2=3 ",
    ),
    *("write code in ", "convert to 5 m ", "a given JSON ", "of 9 words ", "in one line ", "7,777", "-77", "5 km "),
    '"one word after the other and on it goes to make some fifteen of them or more" ',
)
ENGLISH = ("Rephrase my line to be more concise: it is long.", "How can I list several tips for my boss?")
CHINESE = ("\u8bf7\u5199\u4e00\u6bb5\u5f88\u957f\u7684\u8bdd\u7ed9\u6211\u770b\u3002",)
MANY = "\u8bf7\u6982\u62ec\u4ee5\u4e0b\u6587\u7ae0"  # points at something in Chinese

LENGTH = 80_000 if SOAK else 16_000
#: Seconds of CPU for four times that length that no work but linear work does it in: about a millionth a character.
AT_ONCE = 4 * LENGTH * 1e-6
LINEAR, MARGIN = 4, 2.5


def repeated(piece: str, length: int) -> str:
    return (piece * (length // len(piece) + 1))[:length]


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def grows_too_fast(work: Callable[[int], Callable[[], object]], length: int = LENGTH // 4) -> str:
    """How much longer four times the length takes, where that is too much; the least of several times each."""
    small, large = work(length), work(4 * length)
    best = seconds(large)
    if best < AT_ONCE / 4:
        return ""
    few = min(seconds(small) for _ in range(3))
    for _ in range(4):
        if best <= LINEAR * MARGIN * few:
            return ""
        best = min(best, seconds(large))
        few = max(few, min(seconds(small) for _ in range(3)))
    return f"{best / few:.1f} times the time for 4 times the length ({best:.3f} s)"


def asks(check: Callable[..., object], make: Callable[[int], object]) -> Callable[[int], Callable[[], object]]:
    """What asks `check` about what `make` gives for a length."""
    return lambda length: partial(check, make(length))


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Its rounds take time in proportion to all that is alive."""
    gc.disable()
    yield
    gc.enable()


def test_quadratic_work_is_seen() -> None:
    find, count = re.compile(r"\d+x").search, re.compile(r"\d+").findall
    assert grows_too_fast(asks(find, "7".__mul__), 2000)
    assert not grows_too_fast(asks(count, "7 ".__mul__))


def tasks_of(text: str, lang: str) -> Iterator[tuple[str, Task]]:
    """Tasks that have the text in each of the places where it may be, and where two of them are compared."""
    yield "instruction", Task.single(text, "", "Fine, it is so.")
    yield "instruction that points at it", Task.single(f"Shorten the following {text}", "", "Fine.")
    if lang == "zh":
        yield "instruction that points at it", Task.single(f"{MANY}{text}", "", "Fine.")
    yield "instruction and output", Task.single(text, "", f"{text}.")
    for number, instruction in enumerate(ENGLISH if lang == "en" else CHINESE):
        yield f"input {number}", Task.single(instruction, text, "Fine, it is so.")
        yield f"output {number}", Task.single(instruction, "", f"Here it is: {text} and you?")
        yield f"input and output {number}", Task.single(instruction, f"{text} a", text)


def all_rules(lang: str) -> list[Rule]:
    """Each rule of each set once, those that are left out by default too."""
    limits = DEFAULT_THRESHOLDS._replace(min_confidence=0.0, min_output_confidence=0.0)
    names = [name for name in RULE_SETS if lang == "en" or name not in PUBLISHED]
    rules = {rule.name: rule for name in names for rule in rule_set(name, lang, limits)}
    words = [
        Rule(f"{rule.name} of {name}", rule.refuses)
        for name in names
        for rule in rule_set(name, lang, limits)
        if rule.name == "unsuitable_word"
    ]
    return [*(rule for name, rule in rules.items() if name != "unsuitable_word"), *words]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_rule_is_linear_in_every_text_and_place(lang: str) -> None:
    slow = []
    rules = all_rules(lang)
    for piece in PIECES:
        small, large = (dict(tasks_of(repeated(piece, length), lang)) for length in (LENGTH // 4, LENGTH))
        for place in large:
            by_length = {LENGTH // 4: small[place], LENGTH: large[place]}
            for rule in rules:
                found = grows_too_fast(asks(rule.refuses, by_length.__getitem__))
                if found:
                    slow.append(f"{rule.name}, {place} of {piece!r}: {found}")
    assert slow == []


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("instruction", "given", "output"),
    [
        ("How can I list several words? ", "", "Would you? I am here to help."),
        ("It is so. ", "a [your name] b", "[your name]"),
        ("Say \u201cno, we can not\u201d. ", "b", "I cannot provide this."),
        ("Shorten what is long. ", "b c d e f g", "1+1=2"),
        ("So on? ", "one two three four five six", "One two three four five six."),
        ("Correct the code, ", "no", "The steps are:"),
        ("A long line. ", "one two three four five six", "and one two three four five six seven"),
    ],
)
def test_every_rule_is_linear_in_many_instances_of_a_long_instruction(
    lang: str, instruction: str, given: str, output: str
) -> None:
    def task(length: int) -> Task:
        instances = tuple(Instance(f"{given}{number}", f"{output}") for number in range(length // 20))
        return Task(repeated(instruction, length), instances)

    for rule in all_rules(lang):
        assert not grows_too_fast(asks(rule.refuses, task)), rule.name


def test_quotations_are_not_compared_each_with_each() -> None:
    def task(length: int) -> Task:
        one, other = (" ".join(f'"{n} of the {name} words"' for n in range(length // 20)) for name in ("old", "new"))
        return Task.single(ENGLISH[0], one, other)

    (rule,) = (each for each in all_rules("en") if each.name == "not_reworded")
    assert not grows_too_fast(asks(rule.refuses, task))


def compared(check: Callable[[str, str], object], before: str, after: str, text: str) -> object:
    return check(before.format(text), after.format(text))


@pytest.mark.parametrize("piece", PIECES)
def test_rewritings_answers_and_seeds_are_looked_at_in_linear_time(piece: str) -> None:
    def text(length: int) -> str:
        return repeated(piece, length)

    for name, check in CHECKS:
        for before, after in (("<p> {} x", "def {}"), ("{}", "a b"), ("a b", "{}")):
            compare = partial(compared, check, before, after)
            assert not grows_too_fast(asks(compare, text)), name
    looks: tuple[Callable[[str], object], ...] = (
        *(is_code, language_of, has_items, needs_lines, PLACEHOLDER.search, PROMPT_MARK.search, cleaned, mostly_han),
        lambda text: is_code(f"{' ' * len(text)}x{text} x"),
        lambda text: not_translated("some words", text, "en"),
        lambda text: list(text_faults(text)),
        lambda text: encode([text], "unicode"),
    )
    for look in looks:
        assert not grows_too_fast(asks(look, text)), look


@pytest.mark.parametrize("piece", PIECES)
def test_a_batch_is_screened_in_linear_time(piece: str) -> None:
    rules = rule_set("alpaca")

    def batch(length: int) -> list[Task]:
        return [task for _, task in tasks_of(repeated(piece, length), "en")] * (FEW // 8 + 1)

    assert not grows_too_fast(asks(partial(surely_kept, rules), batch), LENGTH // 16)


def test_an_echo_is_found_in_the_beginning_of_texts_too_long_to_compare() -> None:
    text = repeated("one word after the other goes by ", COMPARED)
    shown = [Task.single("Say something at length", "", f"{text} and here {'it ends in some way ' * 5000}")]
    said = Task.single("Tell me a thing or two", "", f"{text} but there {'another end was made ' * 9000}")
    assert echoes([said], shown, 0.8)[0] is not None
    assert echoes([said._replace(instances=(Instance("", said.output[COMPARED:]),))], shown, 0.8) == [None]


@pytest.mark.parametrize("tokenizer", ["rouge", "unicode"])
def test_echoes_are_sought_in_linear_time(tokenizer: TokenizerName) -> None:
    def work(length: int) -> Callable[[], object]:
        text = repeated("one word after the other goes by ", length)
        shown = [Task.single("Say something at length", "", text)] * 3
        return partial(echoes, [Task.single(text, "", text)] * 2, shown, 0.8, tokenizer)

    work(100)()  # compiles
    assert not grows_too_fast(work, 2 * COMPARED)
