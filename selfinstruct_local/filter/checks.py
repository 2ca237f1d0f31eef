"""Checks of answers that can be checked: each says of an output that it is right, wrong, or not of its kind.

A check applies if the instruction states what can be checked (a limit, a format, a language, its labels), or if the
output itself has it (an equation, a block of Python). It fails only what is surely wrong; where that cannot be told, it
does not apply.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from selfinstruct_local.filter.arithmetic import equations_hold, may_want_wrong
from selfinstruct_local.filter.labels import MAX_LABEL_WORDS, label_of, named_labels, names_label
from selfinstruct_local.filter.lengths import UNITS, broken_limit, stated_limits
from selfinstruct_local.filter.scripts import count_scripts
from selfinstruct_local.filter.unfinished import python_blocks, python_fault
from selfinstruct_local.filter.units import wanted_conversion, wrong_conversion
from selfinstruct_local.language import Language
from selfinstruct_local.tasks import Instance, Task

# What is wrong, an empty text if the output passed, None if the check does not apply.
Outcome: TypeAlias = str | None
PASSED = ""
# Reads an instruction, once however many instances it has. What it returns looks at their outputs; None if the
# instruction asks for nothing of its kind.
Judge: TypeAlias = Callable[[Instance], Outcome]
Check: TypeAlias = Callable[[Task, Language], Judge | None]

_FENCED = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_ARTICLES = r"(?:(?:an?|valid|new|single|equivalent|corresponding|simple|nested|it|them|standard)\s+){0,3}"
_WANTS = r"\b(?:as|construct|create|form|generate|give|in|into|make|output|produce|return|to|write)\s+"
# Between the words of a form, no more than 200 characters: more would be read again from each word that begins one.
_WANTS_JSON = re.compile(
    rf"{_WANTS}{_ARTICLES}JSON\b|[以用为成按]\s?JSON|(?:输出|返回|生成)[^，。]{{0,4}}JSON", re.IGNORECASE
)
_WANTS_CSV = re.compile(
    rf"{_WANTS}{_ARTICLES}(?:CSV|comma[- ]separated values)\b|[以用为成按]\s?CSV|(?:输出|返回|生成)[^，。]{{0,4}}CSV",
    re.IGNORECASE,
)
_WANTS_NO_DATA = re.compile(
    r"\b(?:function|program|script|code|python|javascript|java|schema|explain|how|why|api|query|quer(?:y|ies)|difference"
    r"|(?:from|given|following) (?:an? |the )?(?:JSON|CSV)[^.]{0,200}"
    r" (?:in|to|into) (?!(?:an? |the )?(?:JSON|CSV))\w+)\b"
    r"|函数|程序|代码|脚本|解释|如何|怎样",
    re.IGNORECASE,
)
_DECODER = json.JSONDecoder(strict=False)
_MIN_ROWS = 2
_WANTS_PYTHON = re.compile(
    r"\b(?:write|code|create|construct|generate|implement|develop|design|define|build|program|script|function|class)\b"
    r"[^.?!\n]{0,200}\bpython\b|\bpython\b[^.?!\n]{0,200}\b(?:code|function|program|script|class|statement|command|expression)\b",
    re.IGNORECASE,
)
_PYTHON_BEGINS = re.compile(r"(?:def|class|import|from|for|while|if|print\(|#|@|\w+ = )")
_OF_PYTHON = re.compile(
    r"^(?:\s|#|@|[\w.]+(?:\[[^\]\n]*\])?\s*[-+*/]?=|[\w.]+\(|(?:def|class|import|from|for|while|if|elif|else|try|except|with"
    r"|return|print|raise|pass|finally|assert)\b|[)\]}\"'])"
)


def outcomes(task: Task, lang: Language) -> list[dict[str, str]]:
    """Return, for each output, the checks that apply by name: an empty text if it passed, otherwise what is wrong."""
    found: list[dict[str, str]] = [{} for _ in task.instances]
    for name, check in CHECKS.items():
        judge = check(task, lang)
        if judge is None:
            continue
        for instance, by_name in zip(task.instances, found, strict=True):
            if (outcome := judge(instance)) is not None:
                by_name[name] = outcome
    return found


def passed_checks(task: Task, lang: Language) -> list[str]:
    """Return the names of the checks that apply to some output of a task and that none of its outputs fails."""
    results = outcomes(task, lang)
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
        # An instruction whose answer is still to be asked for has an empty output; so has what `empty_output` rejects.
        instances = [instance for instance in task.instances if instance.output.strip()]
        for name in self._asked(task):
            judge = CHECKS[name](task, self.lang)
            faults = filter(None, map(judge, instances)) if judge else iter(())
            if fault := next(faults, None):
                return f"{name}: {fault}"
        return None

    def _asked(self, task: Task) -> Iterator[str]:
        """Yield the checks that may fail, by the words of the instruction."""
        stated = {_STATED_BY[word.lower()] for word in _STATED.findall(task.instruction)} | {"labels"}
        for name in CHECKS:
            if name == "arithmetic":
                continue
            in_output = name == "python" and any("```" in instance.output for instance in task.instances)
            if self.lang != "en" or name in stated or in_output:
                yield name


# --- the checks -----------------------------------------------------------------------------------------------------


def _arithmetic(task: Task, _: Language) -> Judge | None:
    return None if may_want_wrong(task.instruction) else _equations


def _equations(instance: Instance) -> Outcome:
    right = equations_hold(instance.output)
    if right is None:
        return None
    return PASSED if right else "an equation is wrong"


def _units(task: Task, _: Language) -> Judge | None:
    conversion = wanted_conversion(task.instruction)
    return conversion and (lambda instance: wrong_conversion(conversion, instance.input, instance.output))


def _json(task: Task, _: Language) -> Judge | None:
    wanted = _WANTS_JSON.search(task.instruction) and not _WANTS_NO_DATA.search(task.instruction)
    return _read_json if wanted else None


def _read_json(instance: Instance) -> Outcome:
    if "..." in instance.output:
        return None
    text = _unfenced(instance.output)
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


def _csv(task: Task, _: Language) -> Judge | None:
    wanted = _WANTS_CSV.search(task.instruction) and not _WANTS_NO_DATA.search(task.instruction)
    return _read_csv if wanted else None


def _read_csv(instance: Instance) -> Outcome:
    lines = _unfenced(instance.output).splitlines()
    try:
        widths = {len(row) for row in csv.reader(lines, skipinitialspace=True, strict=True) if row}
    except csv.Error as error:
        return f"an output has CSV that cannot be read ({error})"
    if len(widths) > 1:
        return f"an output has CSV with rows of {min(widths)} to {max(widths)} fields"
    return PASSED if len(lines) >= _MIN_ROWS and widths and min(widths) > 1 else None


def _unfenced(output: str) -> str:
    fenced = _FENCED.search(output)
    return (fenced[1] if fenced else output).strip()


def _python(task: Task, _: Language) -> Judge:
    wants_python = _WANTS_PYTHON.search(task.instruction) is not None
    return lambda instance: _compiles(instance, wants_python=wants_python)


def _compiles(instance: Instance, *, wants_python: bool) -> Outcome:
    blocks = list(python_blocks(instance.output)) if "```" in instance.output else []
    if not blocks and "```" not in instance.output and wants_python:
        lines = instance.output.splitlines()
        if _PYTHON_BEGINS.match(instance.output) and all(not line or _OF_PYTHON.match(line) for line in lines):
            blocks = list(python_blocks(f"```python\n{instance.output}\n```"))
    faults = [python_fault(code) for code in blocks]
    return next(filter(None, faults), PASSED) if blocks else None


def _length(task: Task, lang: Language) -> Judge | None:
    limits = stated_limits(task.instruction, lang)
    return (lambda instance: broken_limit(limits, instance.output, lang)) if limits else None


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
    r"\b(?:translat\w+|write|answer|reply|respond|express|rewrite|render|convert)\b[^.?!\n]{0,200}?\b(?:in|into|to)\s"
    rf"(?:simplified |traditional |modern |casual |formal )?(?P<en>{_ANY_LANGUAGE})(?=\s*(?:[.,:;?!\"“\n]|$))"
    rf"|(?:翻?译[成为]?|翻成|请?用|改写成)(?:[^，。；]{{0,6}}的)?(?P<zh>{_ANY_LANGUAGE})(?!名|单词|字母|词)",
    re.IGNORECASE,
)
_ROMANISED = re.compile(
    r"romaji|romani[sz]|pinyin|pronounc|pronunciation|transliterat|phonetic|numerals?|alphabet|拼音|发音", re.IGNORECASE
)
_HALF = 0.5


def _language(task: Task, _: Language) -> Judge | None:
    wanted = {
        script
        for match in _WANTS_LANGUAGE.finditer(task.instruction)
        for script, names in _SCRIPTS.items()
        if re.fullmatch(names, match["en"] or match["zh"], re.IGNORECASE)
    }
    if len(wanted) != 1 or _ROMANISED.search(task.instruction):
        return None
    (script,) = wanted
    # Latin letters do not tell one language from another, and Japanese without kana may be Chinese.
    told = script != "latin" or re.search(r"english|英[语文]", task.instruction, re.IGNORECASE) is not None
    return lambda instance: _is_written_in(script, instance, told=told)


def _is_written_in(script: str, instance: Instance, *, told: bool) -> Outcome:
    counts = count_scripts(instance.output)
    of_it = counts[script] + (counts["han"] if script == "kana" else 0)
    if counts and not of_it:
        return f"an output has no {script} letters, the instruction asks for them"
    return PASSED if told and counts[script] and of_it > _HALF * counts.total() else None


_SHORT = 60  # characters


def _labels(task: Task, lang: Language) -> Judge | None:
    def is_short(instance: Instance) -> bool:
        return len(instance.output) <= _SHORT and len(instance.output.split()) <= MAX_LABEL_WORDS

    if not (task.is_classification or any(map(is_short, task.instances))):
        return None
    labels = named_labels(task.instruction, lang)

    def is_label(instance: Instance) -> Outcome:
        if not (task.is_classification or is_short(instance)):
            return None
        if label_of(instance.output, labels) is not None:
            return PASSED
        if names_label(instance.output, labels):
            return None  # "The claim is true." is an answer, though it is no label.
        return f"an output is none of {', '.join(labels)[:80]}"

    return is_label if labels else None


CHECKS: dict[str, Check] = {
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
