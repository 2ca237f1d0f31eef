"""Parse tasks from the completion of a prompt with task blocks. Never raises: invalid text becomes rejected tasks.

Parsing is tolerant: headings may be missing or misnumbered, fields may be missing, and `###`, numbers or field names in
the middle of a line are text. fields.py defines the fields, questions.py parses user turns, and json_tasks.py parses
JSON.
"""

import re
from itertools import islice

from selfinstruct_local.engines.base import Completion, FinishReason
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.parsing.fields import (
    FLAGS,
    Block,
    field_pattern,
    heading_pattern,
    read_blocks,
    without_rule,
)
from selfinstruct_local.generate.wording import COLON, any_of
from selfinstruct_local.task import Instance, Task

MALFORMED = "malformed"
TRUNCATED = "truncated"
REFUSED_PROMPT = "prompt_too_long"
TOO_MANY = "too_many_tasks"
# Maximum tasks parsed per completion; no prompt requests more than 20.
MAX_TASKS = 1000

NO_INPUT = frozenset(
    {"", "none", "n/a", "na", "no input", "noinput", "null", "not applicable", "-", "无", "没有", "无输入", "不需要"}
)

FIELDS = ("instruction", "input", "output")

_HEADING = heading_pattern("task")
# A task has at most one heading and one instruction field.
_TASK_BEGINS = re.compile(f"{_HEADING.pattern}|{field_pattern('instruction').pattern}", FLAGS)
# `Task 5` without `###` may be a line of an output; it is a heading only if an instruction field follows.
_INSTRUCTION_NEXT = re.compile(
    rf"\s*+[#*_ \t]*+(?:\d++[.)][ \t]*+)?+[*_]*+(?:{any_of('instruction')})s?[*_]*+[ \t]*+{COLON}",
    re.IGNORECASE | re.ASCII,
)
# Characters that do not belong in text files and databases: control characters except for tab and line breaks
# (U+0085 is one too), and surrogates.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_DETAIL_CHARACTERS = 80


def clean_input(text: str) -> str:
    """Return the input of a task, or "" if the model wrote that there is none."""
    text = text.strip()
    return "" if text.strip("<>()[]（）。“”\"'. ").lower() in NO_INPUT else text  # noqa: RUF001 - Chinese marks are meant


def clean_instruction(text: str) -> str:
    """Return an instruction with whitespace collapsed and trailing colons removed, as in the published Alpaca code."""
    return " ".join(text.split()).rstrip(":\N{FULLWIDTH COLON}").rstrip()


def cut_short(completion: Completion) -> bool:
    """Return whether a completion is truncated: the token limit or an abort ended it, not the model."""
    return completion.finish_reason is not FinishReason.STOP


def unix_lines(text: str) -> str:
    """Return the text with Windows and old Mac line endings converted to line feeds."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, for a rejection detail."""
    return " ".join(text[: 4 * _DETAIL_CHARACTERS].split())[:_DETAIL_CHARACTERS].rstrip()


def presentable(draft: ParsedTask) -> ParsedTask:
    """Return the parsed task, rejected if it contains invalid characters, which are then replaced with U+FFFD."""
    task = draft.task
    texts = [task.instruction, draft.detail, *(text for each in task.instances for text in each)]
    found = next(filter(None, map(_UNFIT.search, texts)), None)
    if found is None:
        return draft
    instances = tuple([Instance(*map(_without_unfit, each)) for each in task.instances])
    task = task._replace(instruction=_without_unfit(task.instruction), instances=instances)
    if draft.rule:
        return ParsedTask(task, draft.rule, _without_unfit(draft.detail))
    return ParsedTask(task, MALFORMED, f"contains the invalid character U+{ord(found[0]):04X}")


def _without_unfit(text: str) -> str:
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def refused_prompt(completion: Completion) -> ParsedTask:
    """Return the rejected task that records a prompt too long for the model's context."""
    return ParsedTask(
        Task(""), REFUSED_PROMPT, f"a prompt of {completion.prompt_tokens} tokens leaves no room in the context"
    )


def parse_task_blocks(completion: Completion) -> list[ParsedTask]:
    """Return the tasks in a completion that continues `### Task n` / `Instruction:`.

    A new block begins at a heading, or at another `Instruction:` without one. The last block of a truncated completion
    is rejected. Blocks beyond `MAX_TASKS` are recorded as one rejected task.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [refused_prompt(completion)]
    text, more = up_to(2 * MAX_TASKS, _TASK_BEGINS, unix_lines(completion.text))
    drafts = [_draft(block) for block in _blocks(text, torn=cut_short(completion) and not more)]
    return finished(drafts, completion, more=more)


def up_to(most: int, mark: re.Pattern[str], text: str) -> tuple[str, bool]:
    """Return the text before match number `most` + 1 of `mark`, and whether there is such a match."""
    over = next(islice(mark.finditer(text), most, None), None)
    return (text, False) if over is None else (text[: over.start()], True)


def too_many() -> ParsedTask:
    """Return the rejected task that records the unparsed rest of a completion."""
    return ParsedTask(Task(""), TOO_MANY, f"only the first {MAX_TASKS} tasks of a completion are parsed")


def finished(drafts: list[ParsedTask], completion: Completion, *, more: bool = False) -> list[ParsedTask]:
    """Return the parsed tasks of a completion, at least one, with the last one rejected if it is truncated.

    Args:
        drafts: parsed tasks, in the order of the text.
        completion: completion that they were parsed from.
        more: whether the end of the text was not parsed.
    """
    if not drafts:
        drafts = [ParsedTask(Task(""), MALFORMED, f"no instruction: {excerpt(completion.text)}")]
    if more or len(drafts) > MAX_TASKS:
        drafts = [*drafts[:MAX_TASKS], too_many()]
    elif cut_short(completion):
        drafts[-1] = drafts[-1]._replace(rule=TRUNCATED, detail=f"truncated ({completion.finish_reason.value})")
    return list(map(presentable, drafts))


def _blocks(text: str, *, torn: bool) -> list[Block]:
    # Some models repeat the heading and the field name from the end of the prompt.
    if not _HEADING.match(begun := text.lstrip()) and not _INSTRUCTION_NEXT.match(begun):
        begun = f"Instruction:{text}"
    sections = []
    start = 0
    for heading in _HEADING.finditer(begun):
        if "#" in heading[0] or _INSTRUCTION_NEXT.match(begun, heading.end()):
            sections.append(without_rule(begun[start : heading.start()]))
            start = heading.end()
    blocks = [block for section in sections for block in read_blocks(section, FIELDS, torn=False)]
    return blocks + read_blocks(begun[start:], FIELDS, torn=torn)


def _draft(block: Block) -> ParsedTask:
    fields = block.fields
    instruction = clean_instruction(fields.get("instruction", ""))
    output = fields.get("output", "").strip()
    task = Task.single(instruction, clean_input(fields.get("input", "")), output)
    if not instruction:
        return ParsedTask(task, MALFORMED, f"no instruction: {excerpt(' '.join(fields.values()))}")
    if block.trouble:
        return ParsedTask(task, MALFORMED, block.trouble)
    if "output" not in fields:
        return ParsedTask(task, MALFORMED, "no output")
    return ParsedTask(task)
