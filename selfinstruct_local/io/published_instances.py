"""Parses instances from completions of Self-Instruct's program, with the decisions of that program.

Source: self-instruct, prepare_for_finetuning.py (Wang et al. 2023), bugs included.
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
    """Return the valid instances of a task in their order; may be empty.

    The published program removes duplicates with a set, whose order changes with every start of Python, and samples
    `most` of the rest; here the first of equal instances is kept, and the first `most` of them.

    Args:
        text: completion after the line with the instruction.
        is_classification: whether the label comes before the input.
        most: maximum number of instances.
        torn: whether the completion is truncated, so that its last instance is dropped.
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
    """Return the instances separated by "Example n"; without it a single instance, which must have "Output n:"."""
    text = text.strip()
    if _EXAMPLE.search(text):
        return [_case(part.strip()) for part in _EXAMPLE.split(text) if part.strip()]
    return [_case(text)] if _OUTPUT.search(text) else []


def _case(text: str) -> Instance:
    """Return the instance in a text.

    The input is before the first "Output n:", the output after it up to a second one or to "Input n:". Without
    "Output n:" the whole text is the output.
    """
    before, *after = _OUTPUT.split(text)
    output = after[0] if after else before
    given = before.strip() if after else ""
    opening = _INPUT.match(given)
    return Instance(given[opening.end() if opening else 0 :].strip(), _INPUT.split(output.strip())[0].strip())


def _labelled_cases(text: str) -> list[Instance]:
    """Return an instance per "Class label:": the first line after it is the output, all text below is the input."""
    cases = []
    for part in text.split(LABEL_MARK)[1:]:
        label, _, given = part.strip().partition("\n")
        cases.append(Instance(given.strip(), label.strip()))
    return cases


def _is_whole(case: Instance) -> bool:
    """Return whether an instance has an output, its output differs from its input, and no text ends with a colon."""
    return bool(case.output) and case.input != case.output and not any(text.endswith(":") for text in case)


def _contradict(cases: Iterable[Instance]) -> bool:
    outputs: dict[str, str] = {}
    return any(case.input and outputs.setdefault(case.input, case.output) != case.output for case in cases)
