"""Checks of answers that can be checked: each says of an output that it is right, wrong, or not of its kind.

A check applies if the instruction states what can be checked (a limit, a format, a language, its labels), or if the
output itself has it (an equation, a block of Python). It fails only what is surely wrong; where that cannot be told, it
does not apply.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from selfinstruct_local.filter.arithmetic import equations_hold
from selfinstruct_local.filter.labels import MAX_LABEL_WORDS, label_of, named_labels, names_label
from selfinstruct_local.filter.lengths import UNITS, broken_limit, stated_limits
from selfinstruct_local.filter.scripts import count_scripts
from selfinstruct_local.filter.unfinished import python_blocks, python_fault
from selfinstruct_local.filter.units import wrong_conversion
from selfinstruct_local.language import Language
from selfinstruct_local.tasks import Instance, Task

# What is wrong, an empty text if the output passed, None if the check does not apply.
Outcome: TypeAlias = str | None
PASSED = ""

_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_ARTICLES = r"(?:(?:an?|valid|new|single|equivalent|corresponding|simple|nested|it|them|standard)\s+){0,3}"
_WANTS = r"\b(?:as|construct|create|form|generate|give|in|into|make|output|produce|return|to|write)\s+"
_WANTS_JSON = re.compile(
    rf"{_WANTS}{_ARTICLES}JSON\b|[以用为成按]\s?JSON|(?:输出|返回|生成)[^，。]{{0,4}}JSON", re.IGNORECASE
)
_WANTS_CSV = re.compile(
    rf"{_WANTS}{_ARTICLES}(?:CSV|comma[- ]separated values)\b|[以用为成按]\s?CSV|(?:输出|返回|生成)[^，。]{{0,4}}CSV",
    re.IGNORECASE,
)
_WANTS_NO_DATA = re.compile(
    r"\b(?:function|program|script|code|python|javascript|java|schema|explain|how|why|api|query|quer(?:y|ies)|difference"
    r"|(?:from|given|following) (?:an? |the )?(?:JSON|CSV)[^.]* (?:in|to|into) (?!(?:an? |the )?(?:JSON|CSV))\w+)\b"
    r"|函数|程序|代码|脚本|解释|如何|怎样",
    re.IGNORECASE,
)
_DECODER = json.JSONDecoder(strict=False)
_MIN_ROWS = 2
_WANTS_PYTHON = re.compile(
    r"\b(?:write|code|create|construct|generate|implement|develop|design|define|build|program|script|function|class)\b"
    r"[^.?!\n]*\bpython\b|\bpython\b[^.?!\n]*\b(?:code|function|program|script|class|statement|command|expression)\b",
    re.IGNORECASE,
)
_PYTHON_BEGINS = re.compile(r"(?:def|class|import|from|for|while|if|print\(|#|@|\w+ = )")
_OF_PYTHON = re.compile(
    r"^(?:\s|#|@|[\w.]+(?:\[[^\]\n]*\])?\s*[-+*/]?=|[\w.]+\(|(?:def|class|import|from|for|while|if|elif|else|try|except|with"
    r"|return|print|raise|pass|finally|assert)\b|[)\]}\"'])"
)


def outcomes(task: Task, instance: Instance, lang: Language) -> dict[str, str]:
    """Return the checks that apply to an output by name: an empty text if it passed, otherwise what is wrong."""
    found = ((name, check(task, instance, lang)) for name, check in CHECKS.items())
    return {name: outcome for name, outcome in found if outcome is not None}


def passed_checks(task: Task, lang: Language) -> list[str]:
    """Return the names of the checks that apply to some output of a task and that none of its outputs fails."""
    results = [outcomes(task, instance, lang) for instance in task.instances]
    return [
        name
        for name in CHECKS
        if any(name in result for result in results) and not any(result.get(name) for result in results)
    ]


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """The rule that no output may fail a check, but for those of equations, which have a rule of their own.

    Attributes:
        lang: the language of the tasks.
    """

    lang: Language

    def __call__(self, task: Task) -> str | None:
        """Return the first check that an output fails and what is wrong, or None."""
        stated = {_STATED_BY[word.lower()] for word in _STATED.findall(task.instruction)} | {"labels"}
        # An instruction whose answer is still to be asked for has an empty output; so has what `empty_output` rejects.
        for instance in filter(lambda each: each.output.strip(), task.instances):
            for name, check in CHECKS.items():
                asked = name in stated or (self.lang != "en" and name != "arithmetic")
                asked = asked or (name == "python" and "```" in instance.output)
                if asked and (fault := check(task, instance, self.lang)):
                    return f"{name}: {fault}"
        return None


# --- the checks -----------------------------------------------------------------------------------------------------


def _arithmetic(task: Task, instance: Instance, _: Language) -> Outcome:
    right = equations_hold(task.instruction, instance.output)
    if right is None:
        return None
    return PASSED if right else "an equation is wrong"


def _units(task: Task, instance: Instance, _: Language) -> Outcome:
    return wrong_conversion(task.instruction, instance.input, instance.output)


def _json(task: Task, instance: Instance, _: Language) -> Outcome:
    if not _WANTS_JSON.search(task.instruction) or _WANTS_NO_DATA.search(task.instruction) or "..." in instance.output:
        return None
    fenced = _FENCED.search(instance.output)
    text = (fenced[1] if fenced else instance.output).strip()
    begin = re.search(r"[\[{]", text)
    if begin is None:
        return "an output has no JSON"
    try:
        _DECODER.raw_decode(text, begin.start())
    except json.JSONDecodeError as error:
        return f"an output has JSON that cannot be read ({error.msg})"
    except RecursionError:
        return None
    return PASSED


def _csv(task: Task, instance: Instance, _: Language) -> Outcome:
    if not _WANTS_CSV.search(task.instruction) or _WANTS_NO_DATA.search(task.instruction):
        return None
    fenced = _FENCED.search(instance.output)
    lines = (fenced[1] if fenced else instance.output).strip().splitlines()
    try:
        widths = {len(row) for row in csv.reader(lines, skipinitialspace=True, strict=True) if row}
    except csv.Error as error:
        return f"an output has CSV that cannot be read ({error})"
    if len(widths) > 1:
        return f"an output has CSV with rows of {min(widths)} to {max(widths)} fields"
    return PASSED if len(lines) >= _MIN_ROWS and widths and min(widths) > 1 else None


def _python(task: Task, instance: Instance, _: Language) -> Outcome:
    blocks = list(python_blocks(instance.output)) if "```" in instance.output else []
    if not blocks and "```" not in instance.output and _WANTS_PYTHON.search(task.instruction):
        lines = instance.output.splitlines()
        if _PYTHON_BEGINS.match(instance.output) and all(not line or _OF_PYTHON.match(line) for line in lines):
            blocks = list(python_blocks(f"```python\n{instance.output}\n```"))
    faults = [python_fault(code) for code in blocks]
    return next(filter(None, faults), PASSED) if blocks else None


def _length(task: Task, instance: Instance, lang: Language) -> Outcome:
    results = [broken_limit(limit, instance.output, lang) for limit in stated_limits(task.instruction, lang)]
    told = [result for result in results if result is not None]
    return next(filter(None, told), PASSED) if told else None


_SCRIPTS = {
    "han": r"chinese|mandarin|中文|汉语",
    "kana": r"japanese|日[语文]",
    "hangul": r"korean|韩[语文]",
    "cyrillic": r"russian|ukrainian|bulgarian|俄[语文]",
    "greek": r"greek|希腊[语文]",
    "hebrew": r"hebrew|希伯来[语文]",
    "arabic": r"arabic|persian|farsi|urdu|阿拉伯[语文]",
    "indic": r"hindi|bengali|tamil|telugu|marathi|印地[语文]",
    "thai": r"thai|泰[语文]",
    "latin": r"english|french|german|spanish|italian|portuguese|dutch|英[语文]|法[语文]|德[语文]|西班牙[语文]",
}
_ANY_LANGUAGE = "|".join(_SCRIPTS.values())
_WANTS_LANGUAGE = re.compile(
    r"\b(?:translat\w+|write|answer|reply|respond|express|rewrite|render|convert)\b[^.?!\n]*?\b(?:in|into|to)\s"
    rf"(?:simplified |traditional |modern |casual |formal )?(?P<en>{_ANY_LANGUAGE})(?=\s*(?:[.,:;?!\"“\n]|$))"
    rf"|(?:翻?译[成为]?|翻成|请?用|改写成)(?:[^，。；]{{0,6}}的)?(?P<zh>{_ANY_LANGUAGE})(?!名|单词|字母|词)",
    re.IGNORECASE,
)
_ROMANISED = re.compile(
    r"romaji|romani[sz]|pinyin|pronounc|pronunciation|transliterat|phonetic|numerals?|alphabet|拼音|发音", re.IGNORECASE
)
_HALF = 0.5


def _language(task: Task, instance: Instance, _: Language) -> Outcome:
    wanted = {
        script
        for match in _WANTS_LANGUAGE.finditer(task.instruction)
        for script, names in _SCRIPTS.items()
        if re.fullmatch(names, match["en"] or match["zh"], re.IGNORECASE)
    }
    if len(wanted) != 1 or _ROMANISED.search(task.instruction):
        return None
    (script,) = wanted
    counts = count_scripts(instance.output)
    of_it = counts[script] + (counts["han"] if script == "kana" else 0)
    if counts and not of_it:
        return f"an output has no {script} letters, the instruction asks for them"
    # Latin letters do not tell one language from another, and Japanese without kana may be Chinese.
    told = script != "latin" or re.search(r"english|英[语文]", task.instruction, re.IGNORECASE)
    return PASSED if told and counts[script] and of_it > _HALF * counts.total() else None


_SHORT = 60  # characters


def _labels(task: Task, instance: Instance, lang: Language) -> Outcome:
    short = len(instance.output.split()) <= MAX_LABEL_WORDS and len(instance.output) <= _SHORT
    if not (short or task.is_classification) or not (labels := named_labels(task.instruction, lang)):
        return None
    if label_of(instance.output, labels) is not None:
        return PASSED
    if names_label(instance.output, labels):
        return None  # "The claim is true." is an answer, though it is no label.
    return f"an output is none of {', '.join(labels)[:80]}"


CHECKS: dict[str, Callable[[Task, Instance, Language], Outcome]] = {
    "arithmetic": _arithmetic,
    "units": _units,
    "json": _json,
    "csv": _csv,
    "python": _python,
    "length": _length,
    "language": _language,
    "labels": _labels,
}
# The rule asks a check of an English instruction only if it has one of these words: without them it states nothing that
# can fail. Labels are named in too many ways, and Python may be in the output alone.
_STATING: dict[str, tuple[str, ...]] = {
    "units": ("convert", "change", "express", "many"),
    "json": ("json",),
    "csv": ("csv", "comma"),
    "length": UNITS,
    "language": (
        *(
            "chinese",
            "mandarin",
            "japanese",
            "korean",
            "russian",
            "ukrainian",
            "bulgarian",
            "greek",
            "hebrew",
            "arabic",
        ),
        *("persian", "farsi", "urdu", "hindi", "bengali", "tamil", "telugu", "marathi", "thai", "english", "french"),
        *("german", "spanish", "italian", "portuguese", "dutch"),
    ),
    "python": ("python",),
}
_STATED_BY = {word: name for name, words in _STATING.items() for word in words}
STATES = tuple(_STATED_BY)
_STATED = re.compile(rf"\b(?:{'|'.join(STATES)})\b", re.IGNORECASE | re.ASCII)
