"""Worked cases in the text that Self-Instruct's program lets a model write, read by its decisions.

Source: self-instruct, prepare_for_finetuning.py (Wang et al. 2023), defects included.
"""

import re
from collections.abc import Iterable

from selfinstruct_local.task import Instance

LABEL_MARK = "Class label:"

_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_OUTPUT = re.compile(r"Output\s*+\d*+\s*+:")
_INPUT = re.compile(r"Input\s*+\d*+\s*+:")


def parse_published_instances(
    text: str, *, is_classification: bool, most: int, torn: bool = False
) -> tuple[Instance, ...]:
    """The worked cases of a task that are worth keeping, in the order in which they were written; maybe none.

    The published program brings duplicates down by a set, whose order changes with every start of Python, and draws
    `most` of those left by lot; here the first of equal ones stays, and the first `most`.

    Args:
        text: follows the line that names the task.
        is_classification: the label was written before the input.
        most: cases to keep.
        torn: the text was cut short, so that its last case is dropped.
    """
    read = _labelled_cases if is_classification else _cases
    cases = read(text)
    if torn:
        cases = cases[:-1]
    cases = [case for case in cases if _is_whole(case)]
    if _contradict(cases):
        return ()
    return tuple(dict.fromkeys(cases))[:most]


def _cases(text: str) -> list[Instance]:
    """Cases that "Example n" divides; where it stands nowhere, "Output n:" must, and there is one case."""
    text = text.strip()
    if _EXAMPLE.search(text):
        return [_case(part.strip()) for part in _EXAMPLE.split(text) if part.strip()]
    return [_case(text)] if _OUTPUT.search(text) else []


def _case(text: str) -> Instance:
    """Input before the first "Output n:", output after it up to a second one or to "Input n:"; without it, no input."""
    before, *after = _OUTPUT.split(text)
    output = after[0] if after else before
    given = before.strip() if after else ""
    opening = _INPUT.match(given)
    return Instance(given[opening.end() if opening else 0 :].strip(), _INPUT.split(output.strip())[0].strip())


def _labelled_cases(text: str) -> list[Instance]:
    """The line after each "Class label:" is a label, all below it the input, whatever it calls itself."""
    cases = []
    for part in text.split(LABEL_MARK)[1:]:
        label, _, given = part.strip().partition("\n")
        cases.append(Instance(given.strip(), label.strip()))
    return cases


def _is_whole(case: Instance) -> bool:
    """Not an echo, not without an output, and not broken off where something was announced."""
    return bool(case.output) and case.input != case.output and not any(text.endswith(":") for text in case)


def _contradict(cases: Iterable[Instance]) -> bool:
    outputs: dict[str, str] = {}
    return any(case.input and outputs.setdefault(case.input, case.output) != case.output for case in cases)
