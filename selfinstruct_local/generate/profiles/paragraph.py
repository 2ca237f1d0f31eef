"""Constraints and checks for outputs of one paragraph of prose."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re

SENTENCES = 8
# One or more sentences on one line, or a phrase, for constrained decoding. Where the model would begin a list, a code
# block or another paragraph, it must stop or continue in prose; without the constraint, small models that should be
# short stop there. The maximum number of sentences ends overlong outputs after a sentence. The punctuation marks
# after a sentence are limited, because models that cannot begin a list would otherwise repeat marks forever.
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
    """Return the word in an instruction that requires more than one paragraph of prose, or ""."""
    match = _NEEDS_LINES.search(instruction)
    return match[0] if match else ""


def has_items(output: str) -> bool:
    """Return whether a text contains a numbered list: "1. ... 2. ..."."""
    first = _FIRST_ITEM.search(output)
    return first is not None and _SECOND_ITEM.search(output, first.end()) is not None
