"""What one paragraph of prose can hold, for profiles that answer in one."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re

SENTENCES = 8
# A sentence or more on one line, or a phrase, for constrained decoding. Where the model would begin a list, a block of
# code or another paragraph it has to end, or to go on in prose; left free and told to be short, small models break off
# there. And where they would go on and on, they end with a sentence. What ends one is bounded: held back from a list,
# they would write marks without an end.
_MARKS = ".!?。！？"
PARAGRAPH = rf"[^\n{_MARKS}]+|([^\n{_MARKS}]+[{_MARKS}]{{1,3}}[\"'”’)]{{0,2}}){{1,{SENTENCES}}}"

_NEEDS_LINES = re.compile(
    r"\b(?:codes?|coding|functions?|scripts?|snippets?|programs?|algorithms?|queries|regex|pseudo-?code|python|java"
    r"|javascript|typescript|c\+\+|sql|html|css|json|xml|yaml|bash"
    r"|lists?|checklists?|top \d+|step[- ]by[- ]step|tables?|spreadsheets?|charts?|diagrams?|bullet(?:s|ed)?|schedules?"
    r"|itinerar(?:y|ies)|timelines?|outlines?|templates?|recipes?|menus?|polls?|quiz(?:zes)?|surveys?|questionnaires?"
    r"|poems?|haikus?|sonnets?|limericks?|songs?|lyrics|raps?|rhymes?|dialogues?|screenplays?|essays?|articles?"
    r"|blog posts?|letters?|e-?mails?|resumes?|cover letters?)\b"
    r"|代码|函数|脚本|程序|算法|查询|列表|列出|清单|表格|步骤|图表|日程|时间表|大纲|模板|食谱|菜谱|菜单|问卷|诗|歌词|对联"
    r"|剧本|对话|文章|作文|博客|邮件|书信|写信|简历",
    re.IGNORECASE,
)

_FIRST_ITEM = re.compile(r"(?:^|\s)1[.)] ")
_SECOND_ITEM = re.compile(r"\s2[.)](?:\s|$)")


def needs_lines(instruction: str) -> str:
    """The word by which an instruction asks for more than prose without a line break; empty where none does."""
    match = _NEEDS_LINES.search(instruction)
    return match[0] if match else ""


def has_items(output: str) -> bool:
    """Whether a text numbers what it tells: "1. ... 2. ..."."""
    first = _FIRST_ITEM.search(output)
    return first is not None and _SECOND_ITEM.search(output, first.end()) is not None
