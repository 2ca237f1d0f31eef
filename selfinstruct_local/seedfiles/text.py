"""What may be wrong with the characters of one text of a seed, and the mends that need no judgement.

Leans on the kernels' NFC.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re
from collections.abc import Iterator

from selfinstruct_local.kernels.tokenize import nfc

# Text that stands where text was to come, each told from words that look like it.
_PLACEHOLDERS = (
    r"\b(?:TODO|FIXME|TBD)\b",  # in capitals a note to oneself; todo is a kind of list, and Spanish
    r"\bXXX+\b|\bxxxx+\b",  # XXL is a size, xxx three kisses, XXXIV a number
    r"(?i:\blorem ipsum\b)",
    # [insert name], <your answer>: brackets alone are no sign, for [1], [INFO] and <input> are text.
    r"(?i:[\[<{](?:please )?(?:insert|enter|fill in|add|your) [^\]>}\n]{0,200}[\]>}])",
    r"(?i:\byour (?:text|answer|output|input|response) (?:goes )?here\b)",
    r"(?i:\bplaceholder (?:text|answer|output)\b)",  # a placeholder of a form is a thing one may ask about
    r"占位(?!符)",  # 占位符 is the programmer's word for it
    r"[此这]处(?:填写|填入|输入|插入|待填)|在此(?:填写|填入|输入|插入)",
    r"[（(【\[](?:待填写?|待补充|待定|略|请?填写[^）)】\]]{0,200})[）)】\]]",  # 有待补充 in a sentence is no gap
    # XX公司: a name that somebody was to fill in. 某公司 is how Chinese says "a certain company".
    r"(?<![A-Za-z×])(?:XX+|××+)(?=公司|大学|学校|医院|先生|女士|同学|老师|[省市县区年月])",
)
PLACEHOLDER = re.compile("|".join(_PLACEHOLDERS))
# What the prompts put around tasks: a model that sees it inside one learns to break its own answers.
PROMPT_MARK = re.compile(r"###|^[ \t]*(?:Instruction|Input|Output)s?[ \t]*:", re.IGNORECASE | re.MULTILINE)
# Control characters but line feed and tab; the zero-width space, the byte-order mark, the mark of a failed decoding,
# and what turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffd\u202a-\u202e\u2066-\u2069]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af]")


def text_faults(text: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a text, and how to mend it; each kind of fault once."""
    unseen = _UNSEEN.search(text)
    if unseen:
        yield f"holds the unseen character U+{ord(unseen[0]):04X}", "delete it"
    if not text.isascii() and nfc(text) != text:
        yield "is not in Unicode's composed form (NFC)", "'selfinstruct seeds import' composes it"
    if text.endswith("\n") or any(line != line.rstrip() for line in text.split("\n")):
        yield "has white space at the end of a line", "'selfinstruct seeds import' takes it off"
    placeholder = PLACEHOLDER.search(text)
    if placeholder:
        yield f"holds the placeholder {placeholder[0]!r}", "write the real text"


def cleaned(text: str) -> str:
    """The text in NFC, with line feeds alone between lines and no white space at their ends."""
    lines = nfc(text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def mostly_han(text: str) -> bool:
    """Whether more than half of the letters are Han characters."""
    return 2 * len(_HAN.findall(text)) > sum(map(str.isalpha, text))
