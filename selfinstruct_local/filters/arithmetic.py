"""Wrong equations: the result that an output states for a chain of operations, compared with the computed one."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import operator
import re
from collections.abc import Iterator

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import Task

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SPACE = r"[^\S\n]"  # within a line: the next may begin with an item mark
_SIGN = rf"(?:{_SPACE}*[-+*/×÷]{_SPACE}*|{_SPACE}x{_SPACE})"
# A chain of operations and its stated result. What follows must not belong to the result: a power, a unit in brackets,
# the remainder of a division. A chain without a result is matched too, so that it is not scanned again from each of its
# numbers.
_EQUATION = re.compile(
    rf"(?<![\w.,])[$€£]?({_NUMBER}(?:{_SIGN}[$€£]?{_NUMBER})+)(?:{_SPACE}*={_SPACE}*[$€£]?(-?{_NUMBER})"
    r"(?!\d|[.,:]\d|\s*[-+*/×÷^%=(]|\sx\s|[A-Za-z]*\^|\s*(?:r\b|rem|with|余|…)))?",
    re.IGNORECASE,
)
# What precedes the chain must not belong to it either: another operation, a mixed number, a time of day.
_PART_OF_MORE = re.compile(
    r"(?:[-+*/×÷=^%)√]|\dx|\d\sx|%\s*of|\b(?:log|ln|sin|cos|tan|sqrt|half of))\s*$|\d[ :]$", re.IGNORECASE
)
_BEFORE = 8  # number of preceding characters that are searched
# Without spaces, a slash or a hyphen may also be no operation: 1/4 of a note, 24/7, 9/10 points, 5-10 years, a date.
_FRACTION = re.compile(r"(\d+)/\d+")
_DATE_OR_PATH = re.compile(r"\d+(?:/\d+){2,}|(?:19|20)\d\d-\d\d?-\d\d?")
_CODE = re.compile(r"(?<![\d.,])0\d")  # 05/10, 0101 + 1: a date or a number in another base
_RANGE = re.compile(r"\d[\d,.]*(?:-\d[\d,.]*)+")
_TOKEN = re.compile(rf"({_NUMBER})|([-+*/×÷x])", re.IGNORECASE)
_OPERATIONS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "×": operator.mul,
    "x": operator.mul,
    "/": operator.truediv,
    "÷": operator.truediv,
}
# A result may be off by the rounding error of its last digit or by one percent: results are rounded, some loosely.
_TOLERANCE = 0.01
_SHOWN = 80  # characters of an equation in a message
_CALLS_FOR_WRONG = re.compile(
    r"\b(?:wrong|incorrect\w*|false|mistake\w*|error\w*|joke|absurd|nonsens\w*|check|verify|bases?|binary|modul\w*|hex\w*"
    r"|true|correct)\b|错|对吗|是否|检查|进制",
    re.IGNORECASE,
)


def wrong_arithmetic(task: Task) -> str | None:
    """Return the first wrong equation of an output, or None.

    A fraction, date or range before "=" is not an equation.
    """
    asks = Asking(task.instruction)
    for instance in task.instances:
        if "=" not in instance.output or asks.for_any(_CALLS_FOR_WRONG):
            continue
        for equation, holds in _equations(instance.output):
            if not holds:
                return f"an output says {' '.join(equation.split())[:_SHOWN]}"
    return None


def may_want_wrong(instruction: str) -> bool:
    """Return whether an instruction may ask for wrong equations, or for an arithmetic in which they are right."""
    return _CALLS_FOR_WRONG.search(instruction) is not None


def equations_hold(output: str) -> bool | None:
    """Return whether all equations of an output are right; None if it has none."""
    if "=" not in output:
        return None
    results = [holds for _, holds in _equations(output)]
    return all(results) if results else None


def _equations(output: str) -> Iterator[tuple[str, bool]]:
    """Yield each equation of a text and whether it is right."""
    for match in _EQUATION.finditer(output):
        if match[2] is None or _PART_OF_MORE.search(output[max(0, match.start() - _BEFORE) : match.start()]):
            continue
        value = _evaluate(match[1].lower())
        told = float(match[2].replace(",", ""))
        decimals = len(match[2].partition(".")[2])
        if value is None or _is_notation(match[1], value, told):
            continue
        yield match[0], abs(value - told) <= max(0.51 * 10**-decimals, _TOLERANCE * abs(value))


def _is_notation(chain: str, value: float, told: float) -> bool:
    """Return whether a chain is a fraction, date, path, range or code, so that the number after it is not its result.

    The quotient of whole numbers is at most the dividend, or at most 1 if the divisor is not the smaller one. A
    difference is negative if the smaller number comes first.
    """
    if fraction := _FRACTION.fullmatch(chain):
        return told > (float(fraction[1]) if value > 1 else 1)
    if _RANGE.fullmatch(chain) and value < 0 <= told:
        return True
    return _DATE_OR_PATH.fullmatch(chain) is not None or _CODE.search(chain) is not None


def _evaluate(chain: str) -> float | None:
    """Return the value of numbers joined by + - * /, with the usual precedence, or None for a division by zero."""
    numbers: list[float] = []
    signs: list[str] = []
    for number, sign in _TOKEN.findall(chain):
        if sign:
            signs.append(sign)
            continue
        value = float(number.replace(",", ""))
        if signs and signs[-1] not in "+-":
            last = signs.pop()
            if last in "/÷" and value == 0:
                return None
            numbers[-1] = _OPERATIONS[last](numbers[-1], value)
        else:
            numbers.append(value)
    total = numbers[0]
    for sign, value in zip(signs, numbers[1:], strict=True):
        total = _OPERATIONS[sign](total, value)
    return total
