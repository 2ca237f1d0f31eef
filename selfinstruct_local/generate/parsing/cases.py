"""Reads the worked cases of a task that is known out of what a model wrote, and settles which of them stand.

After the clean-up of the published Self-Instruct program, with two differences: duplicates leave the others in order,
and what drops a task is said.
"""

import re

from selfinstruct_local.engine.base import Completion, FinishReason
from selfinstruct_local.generate.job import Draft
from selfinstruct_local.generate.parsing.fields import (
    FLAGS,
    Block,
    field_pattern,
    field_value,
    heading_pattern,
    read_blocks,
)
from selfinstruct_local.generate.parsing.json_tasks import read_objects, texts_of
from selfinstruct_local.generate.parsing.tasks import (
    MALFORMED,
    MOST_TASKS,
    clean_input,
    cut_short,
    presentable,
    unix_lines,
    up_to,
    with_instances,
)
from selfinstruct_local.generate.wording import COLON, any_of
from selfinstruct_local.tasks import Instance

CONTRADICTION = "contradiction"

_EXAMPLE = heading_pattern("example")
# A case has at most one of each; `label` or `input` is its first field.
_CASE_BEGINS = {
    first: re.compile(f"{_EXAMPLE.pattern}|{field_pattern(first).pattern}", FLAGS) for first in ("input", "label")
}


def parse_worked_case(completion: Completion, second: str) -> tuple[str, str] | None:
    """The two fields of a worked case, the first of whose names the prompt wrote; None when torn or missing.

    Args:
        completion: continues after the first name.
        second: the field that must follow at the beginning of a line: `input` or `output`.
    """
    if cut_short(completion):
        return None
    text = unix_lines(completion.text)
    # As the prompt spells it, or in any other way: an input may well hold a line such as `output: 5` before.
    if exact := re.search(rf"\n(?:{any_of(second)}){COLON}", text):
        return text[: exact.start()].strip(), text[exact.end() :].strip()
    first, _, rest = text.partition("\n")
    mark = field_pattern(second).search(rest)
    if mark is None:
        return None
    return f"{first}\n{rest[: mark.start()]}".strip(), field_value(rest[mark.end() :], mark).strip()


def parse_worked_cases(completion: Completion, *, is_classification: bool) -> list[Instance]:
    """The numbered cases of a completion that continues the first field of `Example 1`; what is torn is left out.

    A case whose fields are missing, doubled or out of order is left out too. No more than `MOST_TASKS` are read.
    """
    first, second = ("label", "input") if is_classification else ("input", "output")
    text = unix_lines(completion.text)
    # Some write the heading and the name again that the prompt wrote for them.
    begun = text.lstrip()
    if not _EXAMPLE.match(begun) and not field_pattern(first).match(begun):
        text = f"{first}:{text}"
    text, more = up_to(2 * MOST_TASKS, _CASE_BEGINS[first], text)
    *sections, last = _EXAMPLE.split(text)
    torn = cut_short(completion) and not more
    blocks = [block for section in sections for block in read_blocks(section, (first, second), torn=False)]
    blocks += read_blocks(last, (first, second), torn=torn)
    if torn and blocks:
        blocks.pop()
    wanted = {first, second}
    return [_instance(block, first, second) for block in blocks if not block.trouble and wanted <= block.fields.keys()]


def _instance(block: Block, first: str, second: str) -> Instance:
    given, asked = block.fields[first].strip(), block.fields[second].strip()
    return Instance(clean_input(asked), given) if first == "label" else Instance(clean_input(given), asked)


def parse_case_objects(completion: Completion, *, is_classification: bool) -> list[Instance]:
    """The cases of a completion that is a JSON object, or an array of them, with `input` and `output` or `label`."""
    output = "label" if is_classification else "output"
    instances = []
    for value in read_objects(completion.text).values:
        texts = texts_of(value, ("input", output))
        if isinstance(texts, dict) and output in texts:
            instances.append(Instance(clean_input(texts.get("input", "")), texts[output].strip()))
    return instances


def with_case(draft: Draft, completion: Completion, *, is_classification: bool, structured: bool) -> Draft:
    """The draft with the one worked case of its task; refused where there is none."""
    instance: Instance | None = None
    if structured:
        instance = next(iter(parse_case_objects(completion, is_classification=is_classification)), None)
    elif case := parse_worked_case(completion, "input" if is_classification else "output"):
        first, second = case
        instance = Instance(clean_input(second), first) if is_classification else Instance(clean_input(first), second)
    if instance is None or completion.finish_reason is FinishReason.REFUSED:
        return _without_case(draft, completion)
    return _settled(draft, (instance,), is_classification=is_classification)


def with_cases(draft: Draft, completion: Completion, most: int, *, is_classification: bool, structured: bool) -> Draft:
    """The draft with up to `most` worked cases of its task, in order; refused where none stands.

    Dropped are cases without an output, those that repeat their input as output, and those that came before. When one
    input (not the empty one) has two outputs, the task is refused: nobody can tell which is right.
    """
    parse = parse_case_objects if structured else parse_worked_cases
    found = parse(completion, is_classification=is_classification)
    if not found or completion.finish_reason is FinishReason.REFUSED:
        return _without_case(draft, completion)
    kept = tuple(dict.fromkeys(each for each in found if each.output and each.output != each.input))
    if not kept:
        return draft._replace(rule=MALFORMED, detail=f"{len(found)} worked cases, each without an output of its own")
    outputs: dict[str, str] = {}
    for each in kept:
        if each.input and outputs.setdefault(each.input, each.output) != each.output:
            refused = _settled(draft, kept, is_classification=is_classification)
            return presentable(refused._replace(rule=CONTRADICTION, detail="one input with two outputs"))
    return _settled(draft, kept[:most], is_classification=is_classification)


def _settled(draft: Draft, instances: tuple[Instance, ...], *, is_classification: bool) -> Draft:
    return presentable(Draft(with_instances(draft.task, instances, is_classification=is_classification)))


def _without_case(draft: Draft, completion: Completion) -> Draft:
    return draft._replace(rule=MALFORMED, detail=f"no worked case ({completion.finish_reason.value})")
