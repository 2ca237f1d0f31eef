"""Parse named fields in completions: `Input: ...`, with optional numbers, headings and Markdown emphasis.

A field begins with its name at the start of a line, in any of the prompt languages; in the middle of a line the name is
text. Every pattern here runs in linear time: repetitions are possessive (`*+`), so there is no backtracking.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from selfinstruct_local.generate.wording import COLON, WORDINGS, any_of

# Ignore case only for ASCII: Unicode case folding would match the Turkish dotless i with the one of "Input".
FLAGS = re.IGNORECASE | re.MULTILINE | re.ASCII
_EMPHASIS = r"[*_]{0,3}+"
_LEAST_RULE = 3  # minimum characters of a line such as `---`
# English field name per name in any language.
_FIELD_NAMES = {
    getattr(wording, name).lower(): name for wording in WORDINGS.values() for name in ("instruction", "input", "output")
}


@dataclass(slots=True)
class Block:
    """The fields of one task, keyed by their English names.

    Attributes:
        fields: texts of the fields; text before or without any field has the empty key.
        trouble: why the fields are ambiguous; empty if they are not.
    """

    fields: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


@cache
def field_pattern(*names: str) -> re.Pattern[str]:
    """Return a pattern that matches the beginning of one of the fields; its groups are for `field_value`."""
    return re.compile(
        rf"^[ \t]*+(?:#{{1,6}}+[ \t]*+)?+(?P<emphasis>{_EMPHASIS})(?:\d++[.)][ \t]*+)?+(?P<inner>{_EMPHASIS})"
        rf"(?P<name>{any_of(*names)})s?(?P<closed>{_EMPHASIS})[ \t]*+{COLON}",
        FLAGS,
    )


def heading_pattern(word: str) -> re.Pattern[str]:
    """Return a pattern that matches the heading lines of blocks, with the words of the `Wording` attribute `word`.

    It matches `### Task 5` with or without the number, or `Task 5` as a whole line.
    """
    end = rf"{_EMPHASIS}[ \t]*+(?:{COLON}|\.)?+{_EMPHASIS}[ \t]*+$"
    name = f"(?:{any_of(word)})"
    return re.compile(
        rf"^(?:#{{1,6}}+[ \t]*+{_EMPHASIS}{name}[ \t]*+\d*+|[ \t]*+{_EMPHASIS}{name}[ \t]*+\d++)[ \t]*+{end}", FLAGS
    )


def read_blocks(section: str, names: Sequence[str], *, torn: bool) -> list[Block]:
    """Return the blocks of fields in a section, the text between two headings.

    Args:
        section: the text.
        names: field names in order, as in `Wording`; the first one begins a block.
        torn: whether the text is truncated.
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
        # With two outputs it is ambiguous which one is the output, or whether one is a quotation.
        if name in block.fields:
            block.trouble = f"field '{name}' occurs twice"
            continue
        later = [each for each in names[names.index(name) + 1 :] if each in block.fields]
        if later:
            block.trouble = f"field '{name}' comes after '{later[0]}'"
        block.fields[name] = field_value(section[mark.end() : end], mark)
    if names[0] not in blocks[0].fields:
        blocks[0].fields[""] = section[: marks[0].start()]
    for before, after in pairwise(blocks):
        if torn and after is block:
            break
        _suspect(before, after, names)
    return blocks


def _suspect(before: Block, after: Block, names: Sequence[str]) -> None:
    """Mark `before` as ambiguous if `after` may be a quotation in its last field."""
    first, last = names[0], names[-1]
    if last not in after.fields or before.fields.get(last, "").rstrip().endswith((":", "\N{FULLWIDTH COLON}")):
        before.trouble = before.trouble or f"field '{first}' may be part of its '{last}'"


def field_value(text: str, mark: re.Match[str]) -> str:
    """Return the text after a match of `field_pattern`, without the closing emphasis of the field name."""
    emphasis = mark["inner"] or mark["emphasis"]
    if not emphasis or mark["closed"]:
        return text
    # `**Input:** text` and `**Input: text**`: the emphasis that was opened before the name is closed in the text.
    return text.removeprefix(emphasis) if text.startswith(emphasis) else text.rstrip().removesuffix(emphasis)


def without_rule(text: str) -> str:
    """Return the text without a last line such as `---`, which models often put between tasks."""
    head, _, last = text.rstrip().rpartition("\n")
    mark = last.strip()
    return head if len(mark) >= _LEAST_RULE and mark == mark[0] * len(mark) and mark[0] in "-*=_" else text
