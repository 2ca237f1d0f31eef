"""Parse tasks from JSON in a completion: complete, truncated, fenced as Markdown, or invalid. Never raises.

Valid JSON is parsed with orjson. Otherwise the objects are decoded one after the other, each up to its first error; no
part of the text is decoded twice.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.engines.base import Completion, FinishReason
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.parsing.tasks import (
    FIELDS,
    MALFORMED,
    MAX_TASKS,
    TRUNCATED,
    clean_input,
    clean_instruction,
    cut_short,
    excerpt,
    finished,
    presentable,
    refused_prompt,
    too_many,
    unix_lines,
)
from selfinstruct_local.task import Task

# Numbers are rejected because fields must be strings, so float is precise enough; int() raises above 4,300 digits.
_DECODER = json.JSONDecoder(strict=False, parse_int=float)
_FENCE = re.compile(r"\s*+```[a-z]*+\s*+", re.IGNORECASE)
# An object around the array, such as {"tasks": [...]}.
_WRAPPING = re.compile(r'\s*+\{\s*+"[^"\\]*+"\s*+:\s*+(?=\[)')
# After this many invalid objects the rest of the text counts as one invalid object, because the decoder reads all the
# text before an error to report its position.
_MOST_BROKEN = 64


class Objects(NamedTuple):
    """The elements of a JSON text.

    Attributes:
        values: decoded elements, in order; a value that is not an array is one element.
        broken: excerpts of the broken parts, which cannot be decoded.
        ends_broken: whether the text ends with the last broken part.
        more: whether there are more than `MAX_TASKS` elements, of which only `MAX_TASKS` are parsed.
    """

    values: list[Any]
    broken: list[str]
    ends_broken: bool
    more: bool = False


def read_objects(text: str) -> Objects:
    """Return the elements of a JSON array, possibly wrapped in an object; complete objects if the JSON is invalid."""
    text = text.lstrip("\N{ZERO WIDTH NO-BREAK SPACE}")
    if fence := _FENCE.match(text):
        text = text[fence.end() :].rstrip().removesuffix("```")
    try:
        whole = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _scan(text)
    if isinstance(whole, dict):
        inner = list(whole.values())
        whole = inner[0] if len(inner) == 1 and isinstance(inner[0], list) else [whole]
    values = whole if isinstance(whole, list) else [whole]
    return Objects(values[:MAX_TASKS], [], ends_broken=False, more=len(values) > MAX_TASKS)


def _scan(text: str) -> Objects:
    values: list[Any] = []
    broken: list[str] = []
    ends_broken = False
    wrapping = _WRAPPING.match(text)
    position = wrapping.end() if wrapping else 0
    while (start := text.find("{", position)) >= 0:
        if len(values) == MAX_TASKS:
            return Objects(values, broken, ends_broken=False, more=True)
        if len(broken) == _MOST_BROKEN:
            return Objects(values, [*broken, excerpt(text[start:])], ends_broken=True)
        try:
            value, position = _DECODER.raw_decode(text, start)
            values.append(value)
            ends_broken = False
            continue
        except json.JSONDecodeError as error:
            # For an unterminated string the error is at its start, and all the text after it belongs to it.
            position = len(text) if error.msg.startswith("Unterminated") else max(error.pos, start + 1)
        except RecursionError:
            position = len(text)
        broken.append(excerpt(text[start:]))
        ends_broken = True
    if not values and not broken and text.strip():
        return Objects([], [excerpt(text)], ends_broken=True)
    return Objects(values, broken, ends_broken=ends_broken)


def texts_of(value: Any, names: Sequence[str]) -> Mapping[str, str] | str:
    """Return the named fields that an object has, null as "", or the reason why it is invalid."""
    if not isinstance(value, dict):
        return f"not an object: {excerpt(str(value))}"
    texts = {}
    for name in names:
        if name in value:
            text = value[name]
            if not isinstance(text, str | None):
                return f"field '{name}' is not a string"
            texts[name] = unix_lines(text or "")
    return texts


def parse_task_objects(completion: Completion) -> list[ParsedTask]:
    """Return the tasks in a completion that is a JSON array of objects with `instruction`, `input` and `output`.

    In a truncated completion the complete objects are kept and the last one is rejected as truncated; invalid objects
    are rejected as malformed.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return [refused_prompt(completion)]
    found = read_objects(completion.text)
    drafts = [presentable(_draft(value)) for value in found.values]
    drafts += [presentable(ParsedTask(Task(""), MALFORMED, f"invalid JSON: {each}")) for each in found.broken]
    if found.more:
        return [*drafts, too_many()]
    if not drafts:
        return finished(drafts, completion)
    if cut_short(completion) and found.ends_broken:
        drafts[-1] = drafts[-1]._replace(rule=TRUNCATED, detail=f"truncated ({completion.finish_reason.value})")
    return drafts


def _draft(value: Any) -> ParsedTask:
    texts = texts_of(value, FIELDS)
    if isinstance(texts, str):
        return ParsedTask(Task(""), MALFORMED, texts)
    instruction = clean_instruction(texts.get("instruction", ""))
    task = Task.single(instruction, clean_input(texts.get("input", "")), texts.get("output", "").strip())
    if not instruction:
        return ParsedTask(task, MALFORMED, f"no instruction: {excerpt(' '.join(texts.values()))}")
    return ParsedTask(task) if "output" in texts else ParsedTask(task, MALFORMED, "no output")
