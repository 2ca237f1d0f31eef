"""Parse completions exactly as the published programs do, including their defects.

The sources are Alpaca's generate_instruction.py (Taori et al. 2023), and Self-Instruct's bootstrap_instructions.py,
identify_clf_or_not.py and prepare_for_finetuning.py (Wang et al. 2023). Text that they skip silently is returned here
as a rejected task with a reason. tasks.py is the tolerant parser without these defects. At most `MAX_TASKS` tasks are
parsed per completion; no prompt of the programs requests as many.
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
    """Return the tasks in a completion that continues "`first`. Instruction:", one per block.

    A block is the text between two `###` anywhere, and the fields of block k must have the number first + k. An output
    that contains `###` therefore splits its block and shifts the numbers of all later ones. A block must contain three
    field names with its number. The names are not checked: the first is the instruction, the second the input, and the
    third the output. The number may be the end of a longer number, and may be in the middle of a line.
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
    """Return the instructions in a completion that continues a numbered list item, one per item.

    A truncated list is rejected as a whole. `str.capitalize` lowercases all characters except for the first, including
    those of names.
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
    """Return whether the answer is exactly a yes; "Yes." counts as no."""
    return completion.text.strip() in YES


def _refused(completion: Completion) -> ParsedTask:
    return ParsedTask(
        Task(""), REFUSED_PROMPT, f"a prompt of {completion.prompt_tokens} tokens leaves no room in the context"
    )


def _unfinished(draft: ParsedTask, completion: Completion) -> ParsedTask:
    return draft._replace(rule=TRUNCATED, detail=f"truncated ({completion.finish_reason.value})")
