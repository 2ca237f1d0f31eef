"""Reject new tasks that copy few-shot examples of their prompt, and inputs that contain the answer."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re
from collections.abc import Sequence

from selfinstruct_local.filters.echo import ECHO, best_scores, recall
from selfinstruct_local.filters.labels import label_of, named_labels
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.languages.base import TOKENIZERS, Language
from selfinstruct_local.task import Task

MAX_SIMILARITY = 0.7
ANSWER_IN_INPUT = "answer_in_input"
# Maximum fraction of the tokens of an input's last paragraph that the output has in the same order.
MAX_RECALL = 0.8

_WRITES_CODE = re.compile(
    r"(?:(?:can|could) you )?(?:please )?(?:write|create|implement|build|define|develop|design|generate|make)\b"
    r"[^.?!]*\b(?:functions?|programs?|scripts?|class|quer(?:y|ies)|methods?|code|regex|loop)\b"
    r"|(?:请)?(?:编写|写|创建|实现|设计|定义)[^。？]*(?:函数|程序|脚本|代码|类|查询|方法)",
    re.IGNORECASE,
)
_FROM_CODE = re.compile(
    r"\b(?:following|given|this|these|below|above|same|convert\w*|based on|using the|existing|provided|its|tests?"
    r"|schema|table|call\w*)\b|下面|以下|给定|这段|这个|根据|测试|表",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|^\s*(?:def|class|function|fn|func|public|private|static|#include|import|from|SELECT|CREATE|let|const|var)\b"
    r"|[;{}]\s*$",
    re.MULTILINE,
)
# Typical beginnings of answers, on a line of the input after the first.
_ANSWERS = re.compile(
    r"\n\s*(?:\W{0,3})(?:to (?:answer|determine|find|solve|check|calculate|identify|translate)\b"
    r"|the (?:(?:correct|final) )?(?:answer|output|result|solution)\b|(?:answer|solution|explanation|output)\s*[:：]"
    r"|therefore\b|in this (?:solution|case|example)\b|here(?:['’]s| is| are)\b|i['’]ll\b|let['’]s\b|we (?:can|need)\b"
    r"|答案|解答|因此|所以|解析)",
    re.IGNORECASE,
)


def reject_copies(draft: ParsedTask, shown: Sequence[Task], lang: Language) -> ParsedTask:
    """Return the parsed task, rejected if it has an example's labels or a text like an example's input or output.

    Copies of the examples' instructions are found by novelty.
    """
    if draft.rule or not shown:
        return draft
    labels = _labels(draft.task, lang)
    if labels and any(labels == _labels(task, lang) for task in shown):
        return draft._replace(rule=ECHO, detail=f"the labels of a few-shot example: {', '.join(sorted(labels))}")
    shown_texts = [text for task in shown for each in task.instances for text in each if text]
    texts = [text for text in (draft.task.instruction, draft.task.input) if text]
    for text, score in zip(texts, best_scores(texts, shown_texts, TOKENIZERS[lang]), strict=True):
        if score > MAX_SIMILARITY or text in shown_texts:
            what = "input" if text == draft.task.input else "instruction"
            return draft._replace(rule=ECHO, detail=f"ROUGE-L {score:.3f} of the {what} with a few-shot example")
    return draft


def reject_answered(draft: ParsedTask) -> ParsedTask:
    """Return the parsed task, rejected if its input contains the answer, or code that the instruction asks for."""
    task = draft.task
    if draft.rule or not task.input:
        return draft
    if match := _ANSWERS.search(task.input):
        return draft._replace(
            rule=ANSWER_IN_INPUT, detail=f"the input contains the answer: '{' '.join(match[0].split())}'"
        )
    asks_for_code = _WRITES_CODE.match(task.instruction) and not _FROM_CODE.search(task.instruction)
    if asks_for_code and _CODE.search(task.input):
        return draft._replace(rule=ANSWER_IN_INPUT, detail="the input contains code that the instruction asks for")
    return draft


def reject_repeated(draft: ParsedTask, lang: Language) -> ParsedTask:
    """Return the parsed task, rejected if the last paragraph of its input repeats its output."""
    task = draft.task
    first, *others = [text for text in task.input.split("\n\n") if text.strip()] or [""]
    if others and not draft.rule:
        begins, ends = (recall(text, task.output, TOKENIZERS[lang]) for text in (first, others[-1]))
        if ends > max(MAX_RECALL, begins):
            return draft._replace(rule=ANSWER_IN_INPUT, detail="the end of the input repeats the output")
    return draft


def reject_labelled(draft: ParsedTask, labels: Sequence[str]) -> ParsedTask:
    """Return the parsed task, rejected if its input is a label, or names the label of its output and no other.

    This rejects 8 of the 713 Alpaca records whose instruction names labels for an input, and no instance of the seeds.
    """
    task = draft.task
    if draft.rule or not labels or not task.input:
        return draft
    said = label_of(task.output, labels)
    named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", task.input, re.IGNORECASE)]
    if label_of(task.input, labels) is not None or (said is not None and named == [said]):
        return draft._replace(
            rule=ANSWER_IN_INPUT, detail=f"the input names the label: {', '.join(named) or task.input}"
        )
    return draft


def _labels(task: Task, lang: Language) -> frozenset[str]:
    return frozenset(label.lower() for label in named_labels(task.instruction, lang))
