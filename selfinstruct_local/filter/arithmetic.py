"""Sums that do not add up: what an output says of a chain of operations, worked out again. Leans on nothing."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import operator
import re

from selfinstruct_local.filter.asking import Asking
from selfinstruct_local.tasks import Task

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SIGN = r"(?:\s*[-+*/×÷]\s*|\sx\s)"
# A chain of operations and what it is said to be. What follows must not belong to it: a power, a unit in brackets, the
# remainder of a division. A chain without a result is matched too, so that it is not gone through again from each of
# its numbers.
_EQUATION = re.compile(
    rf"(?<![\w.,])[$€£]?({_NUMBER}(?:{_SIGN}[$€£]?{_NUMBER})+)(?:\s*=\s*[$€£]?(-?{_NUMBER})"
    r"(?!\d|[.,]\d|\s*[-+*/×÷^%=(]|\sx\s|[A-Za-z]*\^|\s*(?:r\b|rem|with|余|…)))?",
    re.IGNORECASE,
)
_PART_OF_MORE = re.compile(r"(?:[-+*/×÷=^%)]|\dx|\d\sx)\s*$", re.IGNORECASE)
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
# What is left of the last digit that is written, and a hundredth: results are rounded, and some loosely.
_TOLERANCE = 0.01
_SHOWN = 80  # characters of an equation in a detail
_CALLS_FOR_WRONG = re.compile(
    r"\b(?:wrong|incorrect\w*|false|mistake\w*|error\w*|joke|absurd|nonsens\w*|check|verify|bases?|binary|modul\w*|hex\w*"
    r"|true|correct)\b|错|对吗|是否|检查|进制",
    re.IGNORECASE,
)


def wrong_arithmetic(task: Task) -> str | None:
    """Tells of an output that says of a sum, product or the like what it is not."""
    asks = Asking(task.instruction)
    for instance in task.instances:
        if "=" not in instance.output or asks.for_any(_CALLS_FOR_WRONG):
            continue
        for match in _EQUATION.finditer(instance.output):
            if match[2] is None or _PART_OF_MORE.search(instance.output[max(0, match.start() - 4) : match.start()]):
                continue
            value = _evaluate(match[1].lower())
            told = float(match[2].replace(",", ""))
            decimals = len(match[2].partition(".")[2])
            if value is not None and abs(value - told) > max(0.51 * 10**-decimals, _TOLERANCE * abs(value)):
                return f"an output says {' '.join(match[0].split())[:_SHOWN]}"
    return None


def _evaluate(chain: str) -> float | None:
    """The value of numbers with + - * / between them, by the usual precedence; None for a division by zero."""
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
