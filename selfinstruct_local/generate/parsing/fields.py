"""Finds named fields in what a model wrote: `Input: ...`, with numbers, headings, markdown and colons as they come.

A field begins where its name begins a line, in any language that prompts are written in; in the middle of a line it is
text. Every pattern here is linear in its text: runs are possessive (`*+`), so nothing is tried twice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from selfinstruct_local.generate.wording import COLON, WORDINGS, any_of

# Case is folded for ASCII alone: Unicode folding would read the Turkish dotless i as the one of "Input".
FLAGS = re.IGNORECASE | re.MULTILINE | re.ASCII
_EMPHASIS = r"[*_]{0,3}+"
_LEAST_RULE = 3  # characters of a line such as `---`
# The field that a name means, whatever its language.
_FIELD_NAMES = {
    getattr(wording, name).lower(): name for wording in WORDINGS.values() for name in ("instruction", "input", "output")
}


@dataclass(slots=True)
class Block:
    """The fields that belong together, by the name in English.

    Attributes:
        fields: their texts. What stood before or without any field goes by the empty name.
        trouble: why they cannot be told apart; empty when they can.
    """

    fields: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


@cache
def field_pattern(*names: str) -> re.Pattern[str]:
    """Matches where one of the fields begins; its groups are for `field_value`."""
    return re.compile(
        rf"^[ \t]*+(?:#{{1,6}}+[ \t]*+)?+(?P<emphasis>{_EMPHASIS})(?:\d++[.)][ \t]*+)?+(?P<inner>{_EMPHASIS})"
        rf"(?P<name>{any_of(*names)})s?(?P<closed>{_EMPHASIS})[ \t]*+{COLON}",
        FLAGS,
    )


def heading_pattern(word: str) -> re.Pattern[str]:
    """Matches the lines that head a numbered block, as `word` names it in all wordings.

    `### Task 5` with or without its number, or `Task 5` alone on its line.
    """
    end = rf"{_EMPHASIS}[ \t]*+(?:{COLON}|\.)?+{_EMPHASIS}[ \t]*+$"
    name = f"(?:{any_of(word)})"
    return re.compile(
        rf"^(?:#{{1,6}}+[ \t]*+{_EMPHASIS}{name}[ \t]*+\d*+|[ \t]*+{_EMPHASIS}{name}[ \t]*+\d++)[ \t]*+{end}", FLAGS
    )


def read_blocks(section: str, names: Sequence[str], *, torn: bool) -> list[Block]:
    """The blocks of a text between two headings; all of it when there are none.

    Args:
        section: the text.
        names: the fields in their order, as `Wording` calls them; the first begins a block.
        torn: whether the text breaks off.
    """
    marks = list(field_pattern(*names).finditer(section))
    if not marks:
        return [Block({"": section})] if section.strip() else []
    block = Block()
    blocks = [block]
    ends = [mark.start() for mark in marks[1:]] + [len(section)]
    for mark, end in zip(marks, ends, strict=True):
        name = _FIELD_NAMES[mark["name"].lower()]
        if name == names[0] and block.fields:
            blocks.append(block := Block())
        # Which of two outputs is the output, or whether one quotes a field, nobody can tell.
        if name in block.fields:
            block.trouble = f"field '{name}' stands twice"
            continue
        later = [each for each in names[names.index(name) + 1 :] if each in block.fields]
        if later:
            block.trouble = f"field '{name}' stands after '{later[0]}'"
        block.fields[name] = field_value(section[mark.end() : end], mark)
    if names[0] not in blocks[0].fields:
        blocks[0].fields[""] = section[: marks[0].start()]
    for before, after in pairwise(blocks):
        if torn and after is block:
            break
        _suspect(before, after, names)
    return blocks


def _suspect(before: Block, after: Block, names: Sequence[str]) -> None:
    """Notes where a block may be a quotation in the last field of the one before it."""
    first, last = names[0], names[-1]
    if last not in after.fields or before.fields.get(last, "").rstrip().endswith((":", "\N{FULLWIDTH COLON}")):
        before.trouble = before.trouble or f"field '{first}' stands in its '{last}'"


def field_value(text: str, mark: re.Match[str]) -> str:
    """The text after a match of `field_pattern`, without the rest of the emphasis of its name."""
    emphasis = mark["inner"] or mark["emphasis"]
    if not emphasis or mark["closed"]:
        return text
    # `**Input:** text` and `**Input: text**`: the emphasis that was opened before the name ends in the text.
    return text.removeprefix(emphasis) if text.startswith(emphasis) else text.rstrip().removesuffix(emphasis)


def without_rule(text: str) -> str:
    """The text without a last line such as `---`, which models like to put between tasks."""
    head, _, last = text.rstrip().rpartition("\n")
    mark = last.strip()
    return head if len(mark) >= _LEAST_RULE and mark == mark[0] * len(mark) and mark[0] in "-*=_" else text
