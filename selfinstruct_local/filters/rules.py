"""The rules that a task must pass before it is compared with others.

Each rule looks at one task and returns what it found if it rejects the task. The instruction rules and their constants
are those of the published programs: Self-Instruct (Wang et al. 2023, bootstrap_instructions.py) and Stanford Alpaca
(Taori et al. 2023, generate_instruction.py). The other rules catch the typical faults of small models; more of them are
in faults.py, scripts.py, repetition.py and measured.py. For Chinese, which is written without spaces, see rules_zh.py.
rulesets.py combines the rules into sets; precheck.py finds in bulk the tasks that surely pass.
"""

import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import KEPT, Task, Verdict

MIN_WORDS = 4
MAX_WORDS = 150
PROGRAM = "Write a program"
EMPTY_OUTPUT = "empty_output"
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


@dataclass(frozen=True, slots=True)
class Rule:
    """A named check.

    Attributes:
        name: the rule's name in reports and rejects.
        refuses: returns what it found if the task fails, and None if it passes.
    """

    name: str
    refuses: Callable[[Task], str | None]


def _too_short(task: Task) -> str | None:
    words = len(task.instruction.split())
    return f"{words} words, at least {MIN_WORDS} wanted" if words < MIN_WORDS else None


def _too_long(task: Task) -> str | None:
    if len(task.instruction) <= 2 * MAX_WORDS:  # more words than the limit need more characters
        return None
    words = len(task.instruction.split())
    return f"{words} words, at most {MAX_WORDS} wanted" if words > MAX_WORDS else None


class UnsuitableWord:
    """The check that an instruction has no word that asks for what text cannot give.

    Attributes:
        phrases: the words, and phrases of several words.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self.phrases = tuple(phrases)
        # Every text that contains "images" contains "image".
        self._parts = tuple(
            each for each in self.phrases if not any(other in each for other in self.phrases if other != each)
        )
        self._pattern = re.compile(rf"\b({'|'.join(map(re.escape, self.phrases))})\b", re.IGNORECASE)

    def __call__(self, task: Task) -> str | None:
        """Return which of the words the instruction of `task` contains, or None."""
        text = task.instruction
        # The pattern decides. A substring search is a much faster way to find that it cannot match. Beyond ASCII,
        # letters may match others in another case, so the pattern is used at once.
        if text.isascii():
            lowered = text.lower()
            for part in self._parts:
                if part in lowered:
                    break
            else:
                return None
        match = self._pattern.search(text)
        return f"asks for what text cannot give: {match[0]!r}" if match else None


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


_IS_QUESTION = re.compile(r"[?\uff1f](?!\s*\S)")
_CALLS_FOR_MARKS = re.compile(r"punctuat|grammar|correct|capital|\u6807\u70b9|\u8bed\u6cd5", re.IGNORECASE)
_NO_LETTERS = re.compile(r"[\W_]+")


def _bare(word: str) -> str:
    """Return a word in lower case and without punctuation."""
    return _NO_LETTERS.sub("", word.lower())


def input_is_output(task: Task) -> str | None:
    """Return a message if an output repeats its input, or None.

    After a question, an output that differs only in punctuation and case repeats its input too.
    """
    asks = Asking(task.instruction)
    for instance in task.instances:
        if not instance.input:
            continue
        if instance.input.strip() == instance.output.strip():
            return "an output repeats its input"
        # An order may ask for punctuation only; a question is not answered by it.
        given, written = instance.input.split(), instance.output.split()
        if len(given) == len(written) > 1 and asks.for_any(_IS_QUESTION) and not asks.for_any(_CALLS_FOR_MARKS):
            bare = [_bare(word) for word in given]
            if any(bare) and bare == [_bare(word) for word in written]:
                return "an output repeats its input except for punctuation and case"
    return None


def _output_is_instruction(task: Task) -> str | None:
    wanted = task.instruction.strip()
    for instance in task.instances:
        output = instance.output.strip()
        if len(output) == len(wanted) and output.lower() == wanted.lower():
            return "an output repeats the instruction"
    return None


INSTRUCTION_RULES = (
    Rule("too_short", _too_short),
    Rule("too_long", _too_long),
    Rule("asks_for_program", _asks_for_program),
    Rule("starts_with_punctuation", _starts_with_punctuation),
    Rule("starts_with_non_ascii", _starts_with_non_ascii),
)
# These apply to every language.
INSTANCE_RULES = (
    Rule(EMPTY_OUTPUT, _empty_output),
    Rule("input_is_output", input_is_output),
    Rule("output_is_instruction", _output_is_instruction),
)


def published_rules(name: str) -> tuple[Rule, ...]:
    """Return the instruction rules of a published program.

    Args:
        name: a key of `UNSUITABLE`.
    """
    return (*INSTRUCTION_RULES, Rule("unsuitable_word", UnsuitableWord(UNSUITABLE[name])))


def apply_rules(rules: Iterable[Rule], task: Task) -> Verdict:
    """Return the verdict of the first rule that rejects `task`, or `KEPT`."""
    for rule in rules:
        detail = rule.refuses(task)
        if detail is not None:
            return Verdict(keep=False, rule=rule.name, detail=detail)
    return KEPT
