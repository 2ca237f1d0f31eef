"""Reads completions by the decisions of the published programs, those that are defects included.

Alpaca's (Taori et al. 2023) stand in generate_instruction.py, Self-Instruct's (Wang et al. 2023) in
bootstrap_instructions.py, identify_clf_or_not.py and prepare_for_finetuning.py. What they pass over in silence becomes
a draft with a reason here. tasks.py is the tolerant reading that mends them. Beyond `MAX_TASKS` tasks of one
completion nothing is read; no prompt of those programs asks for as many.
"""

import re

from selfinstruct_local.engines.base import Completion, FinishReason
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.parsing.tasks import (
    MALFORMED,
    MAX_TASKS,
    REFUSED_PROMPT,
    TRUNCATED,
    cut_short,
    too_many,
)
from selfinstruct_local.task import Task

BLOCK_MARK = "###"
NO_INPUT = "<noinput>"
FIELDS = 3
YES = frozenset({"Yes", "yes", "YES"})

_ITEM_NUMBER = re.compile(r"\n\d+\s?\. ")
_FIELD = re.compile(r"\.\s+(?:Instruction|Input|Output):")
_DETAIL_CHARACTERS = 80


def parse_published_blocks(completion: Completion, first: int) -> list[ParsedTask]:
    """Tasks out of a completion that follows "`first`. Instruction:", one draft a block.

    Blocks are what stands between two `###`, wherever those stand, and block k must number its fields first + k: an
    output with `###` in it makes two blocks and puts every later one off its number. A block has to hold three field
    names with that number. Which ones is not looked at: the first is taken for the instruction, the second for the
    input, the third for the output. The number may be the end of a longer one, and may stand in the middle of a line.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [_refused(completion)]
    blocks = f"{first}. Instruction:{completion.text}".split(BLOCK_MARK, MAX_TASKS)
    drafts = [_draft(block, number) for number, block in enumerate(blocks[:MAX_TASKS], start=first)]
    if len(blocks) > MAX_TASKS:
        drafts.append(too_many())
    elif cut_short(completion):
        drafts[-1] = _unfinished(drafts[-1], completion)
    return drafts


def _draft(block: str, number: int) -> ParsedTask:
    numbered = str(number)
    names = [name for name in _FIELD.finditer(block) if block.endswith(numbered, 0, name.start())]
    if len(names) != FIELDS:
        seen = " ".join(block.split())[:_DETAIL_CHARACTERS]
        return ParsedTask(Task(""), MALFORMED, f"{len(names)} fields numbered {number}, not {FIELDS}: {seen}")
    ends = [name.start() - len(numbered) for name in names[1:]] + [len(block)]
    instruction, given, output = (block[name.end() : end].strip() for name, end in zip(names, ends, strict=True))
    task = Task.single(instruction, "" if given.lower() == NO_INPUT else given, output)
    return ParsedTask(task) if instruction else ParsedTask(task, MALFORMED, "no instruction")


def parse_published_list(completion: Completion) -> list[ParsedTask]:
    """Instructions out of a completion that follows the number of a list item, one draft an item.

    A list that was cut short is lost as a whole. `str.capitalize` lower-cases all but the first character, names too.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [_refused(completion)]
    parts = _ITEM_NUMBER.split(completion.text, MAX_TASKS)
    items = [" ".join(item.split()).capitalize() for item in parts[:MAX_TASKS]]
    drafts = [ParsedTask(Task(item)) if item else ParsedTask(Task(""), MALFORMED, "an empty item") for item in items]
    if cut_short(completion):
        drafts = [_unfinished(draft, completion) for draft in drafts]
    return [*drafts, too_many()] if len(parts) > MAX_TASKS else drafts


def parse_published_yes_no(completion: Completion) -> bool:
    """Whether the answer is a yes and nothing more; "Yes." is a no."""
    return completion.text.strip() in YES


def _refused(completion: Completion) -> ParsedTask:
    return ParsedTask(Task(""), REFUSED_PROMPT, f"{completion.prompt_tokens} tokens leave no room in the context")


def _unfinished(draft: ParsedTask, completion: Completion) -> ParsedTask:
    return draft._replace(rule=TRUNCATED, detail=f"cut short ({completion.finish_reason.value})")
