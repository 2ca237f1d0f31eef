"""Unfinished outputs (lists and code that end early) and outputs that copy the instruction or input.

Each check returns what it found, or None, and looks only at outputs. The checks apply to English and Chinese.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import Task

# --- unfinished outputs ---------------------------------------------------------------------------------------------

# On a line of its own, at the beginning or below the announcement of the list; the precheck searches for this too.
FIRST_ITEM = re.compile(r"(?:\A|\n)[ \t]{0,8}1[.)、](?=\D)")
# The same within a paragraph: "Here is a guide to get you started: 1. Define your plan."
INLINE_ITEM = ": 1"
_INLINE_FIRST_ITEM = re.compile(
    r"\b(?:guide|steps?|tips|list|ideas|plan|checklist|outline|examples|suggestions|options|recommendations|ways|reasons)\b"
    r"[^.!?:\n]{0,200}: 1[.)] (?=\S)",
    re.IGNORECASE,
)
_SECOND_ITEM = re.compile(r"(?:^|\s)2[.)、](?=\D)")
# "Here's a simple guide to help you pack." and nothing after it: the last sentence begins with either word. If that is
# less than half of the output, the announced thing may precede it.
ANNOUNCING = ("here", "below")
_LAST_SENTENCE = 200
_ANNOUNCES = re.compile(
    r"(?:\A|[.!?\n]\s?)(?:here(?:['’]s| is| are)|below (?:is|are)) (?:an?|some|the|my|our|your|\d+|two|three|four|five"
    r"|ten)\b"
    r"[^.!?:\n]*(?:guide|steps?|tips|list|ideas|plan|checklist|outline|examples?|suggestions|options|recommendations|ways"
    r"|recipe|overview|version|breakdown|explanation|summary)\b[^.!?:\n]*[.!]?\Z",
    re.IGNORECASE,
)
_FENCE = "```"
# Characters. Python's parser builds a tree that takes many times the memory of the text.
READ_AS_PYTHON = 100_000
# Unbounded white space that may include line breaks would be scanned again from each of them, so here and below it is
# bounded.
_PYTHON = re.compile(r"```(?:python|py)[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_OLD_PRINT = re.compile(r"^[ \t]*print [^(\s=]", re.MULTILINE)
_CALLS_FOR_OPEN_END = re.compile(
    r"\b(?:template|forms?|headings?|titles?|begin\w*|introduc\w*|salutation|greeting|outline|format|survey|reports?"
    r"|punctuat\w*|blanks?)\b|开头|标题|称呼|格式|模板|标点|语法|表格",
    re.IGNORECASE,
)
# These may announce something that is elsewhere.
_CALLS_FOR_INVITATION = re.compile(r"\b(?:tweets?|posts?|captions?|headlines?|slogans?|adverts?|ads?)\b", re.IGNORECASE)
# If things are sorted, a group may stay empty: "Hardware: mouse, screen", and below it "Software:".
_CALLS_FOR_GROUPS = re.compile(
    r"\b(?:categor\w*|classif\w*|group\w*|sort\w*|divid\w*|organi[sz]\w*)\b|分类|归类|分组|分成", re.IGNORECASE
)
_GROUP = re.compile(r"[^:：\n]{1,60}[:：][^\S\n]*\S")
# A line of code may end with a colon.
_CALLS_FOR_A_LINE = re.compile(r"\b(?:code|syntax|errors?|bugs?|lines?)\b|代码|语法|错误", re.IGNORECASE)
_LINE_WORDS = 7
# A single item is no list if several are asked for; if one of several is to be chosen, it may be the answer.
_CALLS_FOR_SEVERAL = re.compile(
    r"\b(?:lists?|tips|ways|steps|examples|ideas|things|reasons|options|suggestions|checklist|guide|some|top \d+"
    r"|several|two|three|four|five|six|seven|eight|nine|ten)\b|列出|几个|步骤|建议",
    re.IGNORECASE,
)
_CALLS_FOR_ONE = re.compile(r"\b(?:select|choose|pick|which|determine|output \d)\b|选|哪", re.IGNORECASE)


def cut_off(task: Task) -> str | None:
    """Return how an output is cut off, or None.

    An output is cut off if it announces something and ends, or has code that does not end or is invalid Python. Python
    is parsed in the first `READ_AS_PYTHON` characters of an output.
    """
    asks = Asking(task.instruction)
    for instance in task.instances:
        output = instance.output.strip()
        if output.endswith((":", "：")) and not _may_end_with_colon(output, asks):
            return "an output ends with a colon"
        if _has_first_item(output, asks) and not _SECOND_ITEM.search(output) and not asks.for_any(_CALLS_FOR_ONE):
            return "an output is a list that ends after its first item"
        if _announces(output) and not (asks.for_any(_CALLS_FOR_OPEN_END) or asks.for_any(_CALLS_FOR_INVITATION)):
            return f"an output ends with an announcement: {_shown(output[-80:])}"
        if output.count(_FENCE) % 2:
            return "an output has an unclosed code block"
        for code in python_blocks(output):
            if fault := python_fault(code):
                return fault
    return None


def _has_first_item(output: str, asks: Asking) -> bool:
    """Return whether the output begins a list that the instruction asks for or that the output itself announces."""
    if FIRST_ITEM.search(output) and asks.for_any(_CALLS_FOR_SEVERAL):
        return True
    return INLINE_ITEM in output and _INLINE_FIRST_ITEM.search(output) is not None


def _may_end_with_colon(output: str, asks: Asking) -> bool:
    """Return whether the output may end with a colon.

    It may if the instruction asks for an open end, if the output is a line of code, or if it is groups of which the
    last is empty.
    """
    if asks.for_any(_CALLS_FOR_OPEN_END):
        return True
    if asks.for_any(_CALLS_FOR_A_LINE) and len(output.split()) <= _LINE_WORDS:
        return True
    *groups, _ = output.split("\n")
    return bool(groups) and asks.for_any(_CALLS_FOR_GROUPS) and all(map(_GROUP.match, filter(None, groups)))


def _announces(output: str) -> bool:
    """Return whether the last sentence of a text, which is half of it or more, announces something."""
    last = output[-_LAST_SENTENCE:]
    lowered = last.lower()
    match = _ANNOUNCES.search(last) if any(word in lowered for word in ANNOUNCING) else None
    return match is not None and 2 * len(match[0].split()) >= len(output.split())


def python_blocks(output: str) -> Iterator[str]:
    """Yield the code of the Python blocks in the first `READ_AS_PYTHON` characters of an output.

    Interpreter sessions, parts of a program and Python 2 are left out: it is no fault that they cannot be parsed.
    """
    for match in _PYTHON.finditer(output[:READ_AS_PYTHON]):
        code = textwrap.dedent(match[1])
        if not (">>>" in code or "..." in code or _OLD_PRINT.search(code)):
            yield code


def python_fault(code: str) -> str | None:
    """Return why code cannot be parsed as Python, or None."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code)
    except (RecursionError, MemoryError):
        return None  # the allowed depth depends on the caller's stack
    except (SyntaxError, ValueError) as error:
        return f"an output has invalid Python ({str(error).split('(')[0].strip()[:60]})"
    return None


def _shown(text: str) -> str:
    return f"'{' '.join(text.split())[:80]}'"


# --- copying --------------------------------------------------------------------------------------------------------

COPIED_WORDS = 6
_CALLS_FOR_A_COPY = re.compile(
    r"\b(?:repeat\w*|copy|copies|quot\w*|extract\w*|find|identif\w*|select\w*|choos\w*|chose|pick\w*|which|what|whose|who"
    r"|where|when|highlight\w*|underlin\w*|locat\w*|spot|point out|pull|retriev\w*|options?|correct\w*|errors?"
    r"|mistakes?|grammar\w*|proofread\w*|punctuat\w*|edit\w*|fix\w*|remov\w*|delet\w*|omit\w*|trim|shorten|condens\w*|cut"
    r"|summar\w*|short\w*|answer\w*|classif\w*|categor\w*|detect\w*|determine\w*|decid\w*|sort\w*|order\w*|arrang\w*"
    r"|if|best|most|example|title|sentence that|check|verify|output|lower|upper|capital\w*|format\w*|decod\w*"
    r"|decrypt\w*|transcri\w*|list|name|rank|label|match\w*|filter|print|parse|convert|unscramble"
    r"|insert\w*|divid\w*|split\w*|separat\w*|align\w*|indent\w*|re-?arrang\w*|re-?order\w*|read)\b"
    r"|复述|抄|引用|摘|找|选|哪|什么|谁|标出|指出|改正|纠正|病句|错|删|缩|概括|判断|分类|排|按|提取|列",
    re.IGNORECASE,
)
_GIVEN = re.compile(r"[\"“][^\"“”\n]*[\"”]|[:：\n](?s:.*)")
_BEFORE_SENTENCE = re.compile(r"(?:^|[\"“'‘`:.!?)\-]\s?)$")
_AFTER_SENTENCE = re.compile(r"[.!?,]*(?:[\"”'’`]|\s|$)")


def copied(task: Task) -> str | None:
    """Return where an output copies a whole sentence that the instruction does not ask to copy, or None.

    A text that the instruction itself gives, after a colon, in quotation marks or on another line, counts as an input.
    """
    asks = Asking(task.instruction)
    instruction: str | None = None
    for instance in task.instances:
        # At most one separate mark is removed at either end: the precheck depends on it.
        output = " ".join(instance.output.split()).strip("\"'“”`.").strip()
        if len(output.split()) < COPIED_WORDS:
            continue
        if instruction is None:
            instruction = " ".join(task.instruction.split())
        if (
            _is_sentence_of(instruction, output)
            and not asks.for_any(_CALLS_FOR_ONE)
            and not _may_copy_given(task.instruction, output)
        ):
            return "an output is copied word for word from the instruction"
        if _is_sentence_of(" ".join(instance.input.split()), output) and not asks.for_any(_CALLS_FOR_A_COPY):
            return "an output is copied word for word from its input"
    return None


def _may_copy_given(instruction: str, sentence: str) -> bool:
    """Return whether a sentence belongs to the text that an instruction gives, and its own words may ask for a copy."""
    own = " ".join(_GIVEN.sub(" ", instruction.strip()).split())
    return _CALLS_FOR_A_COPY.search(own) is not None and not _is_sentence_of(own, sentence)


def _is_sentence_of(text: str, sentence: str) -> bool:
    """Return whether a text contains the sentence, at its first occurrence, as a complete one.

    The words of the text must be one space apart.
    """
    before, found, after = text.partition(sentence)
    return bool(found) and _BEFORE_SENTENCE.search(before) is not None and _AFTER_SENTENCE.match(after) is not None
