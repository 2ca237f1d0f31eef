"""The rules that a task must pass before it is compared with others.

Each rule looks at one task and says what it saw when it refuses. The instruction rules and their constants
are those of the published programs: Self-Instruct (Wang et al. 2023, bootstrap_instructions.py) and Stanford
Alpaca (Taori et al. 2023, generate_instruction.py); the others catch what small models write. For Chinese, whose
texts have no spaces, see rules_zh.py. The lists here are the definition; screen.py finds in bulk what surely passes.
"""

import operator
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selfinstruct_local.tasks import KEPT, Task, Verdict

MIN_WORDS = 4
MAX_WORDS = 150
PROGRAM = "Write a program"
SELF_INSTRUCT_UNSUITABLE = (
    "image",
    "images",
    "graph",
    "graphs",
    "picture",
    "pictures",
    "file",
    "files",
    "map",
    "maps",
    "draw",
    "plot",
    "go to",
)
ALPACA_UNSUITABLE = (*SELF_INSTRUCT_UNSUITABLE, "video", "audio", "music", "flowchart", "diagram")
UNSUITABLE = {"alpaca": ALPACA_UNSUITABLE, "self-instruct": SELF_INSTRUCT_UNSUITABLE}

# A text is degenerate when one run of words fills this share of it by standing again and again.
REPETITION_SHARE = 0.5
REPETITION_MIN_WORDS = 12
REPETITION_MAX_PHRASE = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """A named check.

    Attributes:
        name: what stands in reports and ledgers.
        refuses: gives what it saw when the task fails, and None when it passes.
    """

    name: str
    refuses: Callable[[Task], str | None]


def _too_short(task: Task) -> str | None:
    words = len(task.instruction.split())
    return f"{words} words, at least {MIN_WORDS} wanted" if words < MIN_WORDS else None


def _too_long(task: Task) -> str | None:
    if len(task.instruction) <= 2 * MAX_WORDS:  # so many words need more characters
        return None
    words = len(task.instruction.split())
    return f"{words} words, at most {MAX_WORDS} wanted" if words > MAX_WORDS else None


def _unsuitable_word(phrases: Iterable[str]) -> Callable[[Task], str | None]:
    phrases = tuple(phrases)
    # "image" stands in every text in which "images" does.
    parts = tuple(each for each in phrases if not any(other in each for other in phrases if other != each))
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, phrases))})\b", re.IGNORECASE)

    def check(task: Task) -> str | None:
        text = task.instruction
        # The pattern decides; that none of the phrases stands anywhere tells much faster that it cannot match. Beyond
        # ASCII, letters may match others in another case, so there the pattern is asked at once.
        if text.isascii():
            lowered = text.lower()
            for part in parts:
                if part in lowered:
                    break
            else:
                return None
        match = pattern.search(text)
        return f"asks for what text cannot give: {match[0]!r}" if match else None

    return check


def _asks_for_program(task: Task) -> str | None:
    # The published programs drop these because small models answer "Write a program" without code.
    return f"starts with {PROGRAM!r}" if task.instruction.startswith(PROGRAM) else None


def _starts_with_punctuation(task: Task) -> str | None:
    first = task.instruction[:1]
    return f"starts with {first!r}" if first and first in string.punctuation else None


def _starts_with_non_ascii(task: Task) -> str | None:
    first = task.instruction[:1]
    return f"starts with {first!r}" if first and not first.isascii() else None


def _empty_output(task: Task) -> str | None:
    for instance in task.instances:
        if not instance.output or instance.output.isspace():
            return "an output is empty"
    return None


def _input_is_output(task: Task) -> str | None:
    for instance in task.instances:
        if instance.input and instance.input.strip() == instance.output.strip():
            return "an output repeats its input"
    return None


def _output_is_instruction(task: Task) -> str | None:
    wanted = task.instruction.strip()
    for instance in task.instances:
        output = instance.output.strip()
        if len(output) == len(wanted) and output.lower() == wanted.lower():
            return "an output repeats the instruction"
    return None


def degenerate_repetition(
    cut: Callable[[str], list[str]], least: int, longest: int, *, characters: int
) -> Callable[[Task], str | None]:
    """The check that no input or output is mostly one phrase over and over.

    Args:
        cut: gives the words of a text.
        least: texts of fewer words pass.
        longest: words of the longest phrase that is looked for.
        characters: shorter texts cannot have `least` words and are not cut.
    """

    def check(task: Task) -> str | None:
        for instance in task.instances:
            for name, text in (("input", instance.input), ("output", instance.output)):
                if len(text) < characters:
                    continue
                words = cut(text)
                share = repeated_share(words, least, longest) if _could_loop(words, least, longest) else 0.0
                if share > REPETITION_SHARE:
                    return f"{share:.0%} of an {name} is one phrase over and over"
        return None

    return check


def _could_loop(words: list[str], least: int = REPETITION_MIN_WORDS, longest: int = REPETITION_MAX_PHRASE) -> bool:
    """Whether a phrase could fill over half of `words`; asked first, it spares nearly all texts the search.

    A run over more than half of the words goes through the middle one, which then stands a few words earlier too. And
    each word of the run stands earlier, so the words are not mostly different.
    """
    if len(words) < least:
        return False
    middle = len(words) // 2
    if words[middle] not in words[max(0, middle - longest) : middle]:
        return False
    return len(set(words)) < len(words) * (1 - REPETITION_SHARE)


def repeated_share(words: list[str], least: int = REPETITION_MIN_WORDS, longest: int = REPETITION_MAX_PHRASE) -> float:
    """The largest share of `words` that one phrase covers by following itself, in [0, 1].

    Phrases of 1 to `longest` words are tried; the first time a phrase stands does not count. Texts under `least`
    words give 0. O(longest * n) for n words.
    """
    total = len(words)
    if total < least:
        return 0.0
    run = 0
    for period in range(1, longest + 1):
        # One byte a word: 1 where the word is the one a period before.
        repeats = bytes(map(operator.eq, words[period:], words))
        run = max(run, *map(len, repeats.split(b"\0")))
    return run / total


_INSTRUCTION_RULES = (
    Rule("too_short", _too_short),
    Rule("too_long", _too_long),
    Rule("asks_for_program", _asks_for_program),
    Rule("starts_with_punctuation", _starts_with_punctuation),
    Rule("starts_with_non_ascii", _starts_with_non_ascii),
)
# These hold in every language.
INSTANCE_RULES = (
    Rule("empty_output", _empty_output),
    Rule("input_is_output", _input_is_output),
    Rule("output_is_instruction", _output_is_instruction),
)
_REPETITION = Rule(
    "degenerate_repetition",
    # So many words need that many characters and a space between each two.
    degenerate_repetition(
        str.split, REPETITION_MIN_WORDS, REPETITION_MAX_PHRASE, characters=2 * REPETITION_MIN_WORDS - 1
    ),
)

RULE_SETS: dict[str, tuple[Rule, ...]] = {
    **{
        name: (
            *_INSTRUCTION_RULES,
            Rule("unsuitable_word", _unsuitable_word(phrases)),
            *INSTANCE_RULES,
            _REPETITION,
        )
        for name, phrases in UNSUITABLE.items()
    },
    # The published decisions and no more: an empty output passes.
    **{
        dated: (*_INSTRUCTION_RULES, Rule("unsuitable_word", _unsuitable_word(UNSUITABLE[name])))
        for dated, name in (("alpaca-2023", "alpaca"), ("self-instruct-2022", "self-instruct"))
    },
    "none": (),
}


def apply_rules(rules: Iterable[Rule], task: Task) -> Verdict:
    """The verdict of the first rule that refuses `task`, or `KEPT`."""
    for rule in rules:
        detail = rule.refuses(task)
        if detail is not None:
            return Verdict(keep=False, rule=rule.name, detail=detail)
    return KEPT
