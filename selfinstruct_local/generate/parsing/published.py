"""Reads completions by the decisions of the published programs, those that are defects included.

Alpaca's (Taori et al. 2023) stand in generate_instruction.py, Self-Instruct's (Wang et al. 2023) in
bootstrap_instructions.py, identify_clf_or_not.py and prepare_for_finetuning.py. What they pass over in silence becomes
a draft with a reason here. tasks.py is the tolerant reading that mends them. Beyond `MOST_TASKS` tasks of one
completion nothing is read; no prompt of those programs asks for as many.
"""

import re
from collections.abc import Iterable

from selfinstruct_local.engine.base import Completion, FinishReason
from selfinstruct_local.generate.job import Draft
from selfinstruct_local.generate.parsing.tasks import (
    MALFORMED,
    MOST_TASKS,
    REFUSED_PROMPT,
    UNFINISHED,
    cut_short,
    too_many,
)
from selfinstruct_local.tasks import Instance, Task

BLOCK_MARK = "###"
NO_INPUT = "<noinput>"
FIELDS = 3
YES = frozenset({"Yes", "yes", "YES"})
LABEL_MARK = "Class label:"

_ITEM_NUMBER = re.compile(r"\n\d+\s?\. ")
_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_FIELD = re.compile(r"\.\s+(?:Instruction|Input|Output):")
_OUTPUT = re.compile(r"Output\s*+\d*+\s*+:")
_INPUT = re.compile(r"Input\s*+\d*+\s*+:")
_DETAIL_CHARACTERS = 80


def parse_published_blocks(completion: Completion, first: int) -> list[Draft]:
    """Tasks out of a completion that follows "`first`. Instruction:", one draft a block.

    Blocks are what stands between two `###`, wherever those stand, and block k must number its fields first + k: an
    output with `###` in it makes two blocks and puts every later one off its number. A block has to hold three field
    names with that number. Which ones is not looked at: the first is taken for the instruction, the second for the
    input, the third for the output. The number may be the end of a longer one, and may stand in the middle of a line.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [_refused(completion)]
    blocks = f"{first}. Instruction:{completion.text}".split(BLOCK_MARK, MOST_TASKS)
    drafts = [_draft(block, number) for number, block in enumerate(blocks[:MOST_TASKS], start=first)]
    if len(blocks) > MOST_TASKS:
        drafts.append(too_many())
    elif cut_short(completion):
        drafts[-1] = _unfinished(drafts[-1], completion)
    return drafts


def _draft(block: str, number: int) -> Draft:
    numbered = str(number)
    names = [name for name in _FIELD.finditer(block) if block.endswith(numbered, 0, name.start())]
    if len(names) != FIELDS:
        seen = " ".join(block.split())[:_DETAIL_CHARACTERS]
        return Draft(Task(""), MALFORMED, f"{len(names)} fields numbered {number}, not {FIELDS}: {seen}")
    ends = [name.start() - len(numbered) for name in names[1:]] + [len(block)]
    instruction, given, output = (block[name.end() : end].strip() for name, end in zip(names, ends, strict=True))
    task = Task.single(instruction, "" if given.lower() == NO_INPUT else given, output)
    return Draft(task) if instruction else Draft(task, MALFORMED, "no instruction")


def parse_published_list(completion: Completion) -> list[Draft]:
    """Instructions out of a completion that follows the number of a list item, one draft an item.

    A list that was cut short is lost as a whole. `str.capitalize` lower-cases all but the first character, names too.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [_refused(completion)]
    parts = _ITEM_NUMBER.split(completion.text, MOST_TASKS)
    items = [" ".join(item.split()).capitalize() for item in parts[:MOST_TASKS]]
    drafts = [Draft(Task(item)) if item else Draft(Task(""), MALFORMED, "an empty item") for item in items]
    if cut_short(completion):
        drafts = [_unfinished(draft, completion) for draft in drafts]
    return [*drafts, too_many()] if len(parts) > MOST_TASKS else drafts


def parse_published_yes_no(completion: Completion) -> bool:
    """Whether the answer is a yes and nothing more; "Yes." is a no."""
    return completion.text.strip() in YES


def parse_published_instances(completion: Completion, *, is_classification: bool, most: int) -> tuple[Instance, ...]:
    """The worked cases of a task that are worth keeping, in the order in which they were written; maybe none.

    The published program brings duplicates down by a set, whose order changes with every start of Python, and draws
    `most` of those left by lot; here the first of equal ones stays, and the first `most`.

    Args:
        completion: follows the line that names the task.
        is_classification: the label was written before the input.
        most: cases to keep.
    """
    read = _labelled_cases if is_classification else _cases
    cases = read(completion.text)
    if cut_short(completion):
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


def _refused(completion: Completion) -> Draft:
    return Draft(Task(""), REFUSED_PROMPT, f"{completion.prompt_tokens} tokens leave no room in the context")


def _unfinished(draft: Draft, completion: Completion) -> Draft:
    return draft._replace(rule=UNFINISHED, detail=f"cut short ({completion.finish_reason.value})")
