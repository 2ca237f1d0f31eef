"""Faults in the characters of a seed's text, and the fixes that need no human judgement."""

# ruff: noqa: RUF001 (the Chinese punctuation is intended)

import re
from collections.abc import Iterator

from selfinstruct_local.kernels.tokenize import nfc

# Placeholders for text that is still missing; each pattern excludes ordinary words that look similar.
_PLACEHOLDERS = (
    r"\b(?:TODO|FIXME|TBD)\b",  # capitals mark a note; "todo" is a kind of list, and Spanish
    r"\bXXX+\b|\bxxxx+\b",  # XXL is a size, xxx three kisses, XXXIV a number
    r"(?i:\blorem ipsum\b)",
    # [insert name], <your answer>: brackets alone do not count, since [1], [INFO] and <input> are ordinary text.
    r"(?i:[\[<{](?:please )?(?:insert|enter|fill in|add|your) [^\]>}\n]{0,200}[\]>}])",
    r"(?i:\byour (?:text|answer|output|input|response) (?:goes )?here\b)",
    r"(?i:\bplaceholder (?:text|answer|output)\b)",  # the placeholder of a form can be a topic
    r"占位(?!符)",  # 占位符 is the programming term
    r"[此这]处(?:填写|填入|输入|插入|待填)|在此(?:填写|填入|输入|插入)",
    r"[（(【\[](?:待填写?|待补充|待定|略|请?填写[^）)】\]]{0,200})[）)】\]]",  # 有待补充 is ordinary text
    # XX公司: a name to be filled in. 某公司 is ordinary Chinese for "a certain company".
    r"(?<![A-Za-z×])(?:XX+|××+)(?=公司|大学|学校|医院|先生|女士|同学|老师|[省市县区年月])",
)
PLACEHOLDER = re.compile("|".join(_PLACEHOLDERS))
# Marks that the prompts put around tasks: a model that sees one inside a task learns to write it, which corrupts its
# completions.
PROMPT_MARK = re.compile(r"###|^[ \t]*(?:Instruction|Input|Output)s?[ \t]*:", re.IGNORECASE | re.MULTILINE)
# Control characters except for line feed and tab; the zero-width space, the byte-order mark, the replacement character,
# and bidirectional controls.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffd\u202a-\u202e\u2066-\u2069]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af]")


def text_faults(text: str) -> Iterator[tuple[str, str]]:
    """Yield (fault, fix) for a text, once per kind of fault."""
    unseen = _UNSEEN.search(text)
    if unseen:
        yield f"has the invisible character U+{ord(unseen[0]):04X}", "delete it"
    if not text.isascii() and nfc(text) != text:
        yield "is not in Unicode's composed form (NFC)", "run 'selfinstruct seeds import', which normalises it"
    if text.endswith("\n") or any(line != line.rstrip() for line in text.split("\n")):
        yield "has trailing white space", "run 'selfinstruct seeds import', which removes it"
    placeholder = PLACEHOLDER.search(text)
    if placeholder:
        yield f"has the placeholder {placeholder[0]!r}", "write the final text"


def cleaned(text: str) -> str:
    """Return the text in NFC, with line feeds only between lines and without trailing white space."""
    lines = nfc(text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def mostly_han(text: str) -> bool:
    """Return whether more than half of the letters are Han characters."""
    return 2 * len(_HAN.findall(text)) > sum(map(str.isalpha, text))
