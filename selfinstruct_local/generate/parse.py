"""Reads tasks out of what a model wrote. Whatever it wrote, the answer is drafts, never an exception.

The text is taken as it comes: headings may be missing or misnumbered, fields may be missing, and `###`, numbers
or field names in the middle of a line are text. A field begins where its name begins a line, in any language that
prompts are written in.
"""

import re

from selfinstruct_local.engine.base import Completion, FinishReason
from selfinstruct_local.generate.job import Draft
from selfinstruct_local.generate.wording import COLON, WORDINGS, any_of
from selfinstruct_local.tasks import Instance, Task

MALFORMED = "malformed"
UNFINISHED = "unfinished"
REFUSED_PROMPT = "prompt_too_long"

TWICE = "twice"  # beside the fields of a block: the name of one that came a second time

NO_INPUT = frozenset(
    {"", "none", "n/a", "na", "no input", "noinput", "null", "not applicable", "-", "无", "没有", "无输入", "不需要"}
)

_TASK = any_of("task")
# `### Task 5`, with or without its number, or `Task 5` alone on its line.
_HEADING = re.compile(
    rf"^(?:#{{1,6}}[ \t]*(?:{_TASK})[ \t]*\d*|[ \t]*(?:{_TASK})[ \t]+\d+)[ \t]*(?:{COLON}|\.)?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = re.compile(
    rf"^[ \t]*(?:\d+\.[ \t]*)?({any_of('instruction', 'input', 'output')})s?[ \t]*{COLON}",
    re.IGNORECASE | re.MULTILINE,
)
# The field that a name means, whatever its language.
_FIELD_NAMES = {
    getattr(wording, name).lower(): name for wording in WORDINGS.values() for name in ("instruction", "input", "output")
}
_NUMBER = re.compile(r"^[ \t]*\d+[ \t]*[.)][ \t]*", re.MULTILINE)
_DETAIL_CHARACTERS = 80


def clean_input(text: str) -> str:
    """The input of a task, empty where the model wrote that there is none."""
    text = text.strip()
    return "" if text.strip("<>()[]（）。“”\"'. ").lower() in NO_INPUT else text  # noqa: RUF001 - Chinese marks are meant


def clean_instruction(text: str) -> str:
    """White space collapsed and trailing colons taken off, as the published Alpaca program does."""
    return " ".join(text.split()).rstrip(":\N{FULLWIDTH COLON}").rstrip()


def cut_short(completion: Completion) -> bool:
    """Whether the end of the text is torn: the token limit or an abort ended it, not the model."""
    return completion.finish_reason is not FinishReason.STOP


def parse_task_blocks(completion: Completion) -> list[Draft]:
    """Tasks out of a completion that continues `### Task n` / `Instruction:`.

    A new block begins at a heading, and where another `Instruction:` begins without one. The last block is
    dropped when the text was cut short.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        detail = f"{completion.prompt_tokens} tokens leave no room in the context"
        return [Draft(Task(""), REFUSED_PROMPT, detail)]
    blocks = _blocks("Instruction:" + completion.text)
    drafts = [_draft(fields) for fields in blocks]
    if drafts and cut_short(completion):
        drafts[-1] = drafts[-1]._replace(rule=UNFINISHED, detail=f"cut short ({completion.finish_reason.value})")
    return drafts


def _blocks(text: str) -> list[dict[str, str]]:
    blocks: list[dict[str, str]] = []
    for section in _HEADING.split(text):
        fields: dict[str, str] = {}
        marks = list(_FIELD.finditer(section))
        ends = [mark.start() for mark in marks[1:]] + [len(section)]
        for mark, end in zip(marks, ends, strict=False):
            name = _FIELD_NAMES[mark[1].lower()]
            value = section[mark.end() : end]
            if name == "instruction" and fields:
                blocks.append(fields)
                fields = {}
            # Which of two outputs is the output, or whether one quotes a field, nobody can tell.
            if name in fields:
                fields[TWICE] = name
            else:
                fields[name] = value
        if fields:
            blocks.append(fields)
    return blocks


def _draft(fields: dict[str, str]) -> Draft:
    instruction = clean_instruction(fields.get("instruction", ""))
    output = fields.get("output", "").strip()
    task = Task.single(instruction, clean_input(fields.get("input", "")), output)
    if not instruction:
        shown = " ".join(" ".join(fields.values()).split())[:_DETAIL_CHARACTERS]
        return Draft(task, MALFORMED, f"no instruction: {shown}")
    if TWICE in fields:
        return Draft(task, MALFORMED, f"field '{fields[TWICE]}' stands twice")
    if "output" not in fields:
        return Draft(task, MALFORMED, "no output")
    return Draft(task)


def parse_numbered_instructions(completion: Completion) -> list[Draft]:
    """Instructions out of a completion that continues a numbered list after its number.

    A list that was cut short loses its last item.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return parse_task_blocks(completion)
    items = [clean_instruction(item) for item in _NUMBER.split(completion.text)]
    drafts = [Draft(Task(item)) for item in items if item]
    if drafts and cut_short(completion):
        drafts[-1] = drafts[-1]._replace(rule=UNFINISHED, detail=f"cut short ({completion.finish_reason.value})")
    return drafts


def parse_yes_no(completion: Completion) -> bool:
    """Whether the model said yes; anything else is a no, as published."""
    return completion.text.strip().lower().startswith(tuple(wording.yes.lower() for wording in WORDINGS.values()))


def parse_worked_case(completion: Completion, second: str) -> tuple[str, str] | None:
    """The two fields of a worked case, the first of whose names the prompt wrote; None when torn or missing.

    Args:
        completion: continues after the first name.
        second: the field that must follow at the beginning of a line: `input` or `output`.
    """
    if completion.finish_reason is not FinishReason.STOP:
        return None
    parts = re.split(rf"\n(?:{any_of(second)}){COLON}", completion.text, maxsplit=1)
    return (parts[0].strip(), parts[1].strip()) if len(parts) > 1 else None


def with_instance(task: Task, instance: Instance, *, is_classification: bool) -> Task:
    """The task with its worked case and its kind."""
    return Task(task.instruction, (instance,), is_classification, task.id, task.lineage)
