"""Parse the task in a generated user turn: an instruction, followed by the input."""

import re

from selfinstruct_local.engines.base import Completion, FinishReason
from selfinstruct_local.filters.labels import yes_no
from selfinstruct_local.generate.job import ParsedTask
from selfinstruct_local.generate.parsing.fields import field_pattern, field_value
from selfinstruct_local.generate.parsing.tasks import (
    MALFORMED,
    TRUNCATED,
    clean_input,
    clean_instruction,
    cut_short,
    presentable,
    refused_prompt,
    unix_lines,
)
from selfinstruct_local.languages.base import Language
from selfinstruct_local.task import Instance, Task

FOLLOW_UP = "follow_up"
NO_REQUEST = "no_request"

# Instructions that make sense only after an earlier turn of a conversation.
_FOLLOW_UP = re.compile(
    r"(?:thanks|thank you|ok(?:ay)?|great|perfect|good job|well done|nice|yes|no|sure|sorry)[,.!]"
    r"|(?:thank(?:s| you)|and|but|also|now)\b"
    r"|.*\b(?:your|the|my) (?:previous|last|earlier|above) (?:answer|response|message|question|task|reply|example)s?\b"
    r"|.*\byou (?:just )?(?:gave|wrote|said|mentioned|listed|provided)\b"
    r"|谢谢|好的|很好|不错|对了|那么|还有|另外|现在|.*(?:上一个|刚才的?|前面的?|你的)(?:回答|答案|回复|问题|任务|例子)",
    re.IGNORECASE,
)

# A quoted text that the instruction is about.
_QUOTED_TEXT = re.compile(r"[\"“](?:[^\s\"“”]+\s){2}[^\"“”]+[\"”]|“[^“”]{6,}”")
# Words of a question about a text or case that follows, not about the world.
_OF_A_TEXT = re.compile(
    r"\b(?:above|below|following|given|he|her|his|i|it|its|my|our|she|that|their|these|they|this|those|we)\b"
    r"|\b(?:an?|the) (?:\w+ )?(?:answer|argument|article|author|claim|code|comment|conversation|customer|dialogue|email"
    r"|equation|example|function|headline|item|letter|line|list|message|note|number|object|paragraph|passage|person|phrase|poem|post"
    r"|product|question|reply|request|review|sentence|speaker|statement|story|string|table|text|title|tweet|user|word"
    r"|writer)s?\b|[这该此他她它我]|以下|下面|下列|给定|[句段文话词题]|评论|留言|用户|顾客|客户|消息|邮件|代码|数字",
    re.IGNORECASE,
)
# Verbs that ask for a text or a result, which needs no input.
_MAKES = re.compile(
    r"(?:(?:can|could|would) you )?(?:please )?(?:brainstorm|build|calculate|come up|compose|construct|create|describe"
    r"|design|develop|discuss|draft|explain|generate|give|imagine|invent|list|make|name|outline|propose|provide|suggest|tell"
    r"|write)\b",
    re.IGNORECASE,
)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_MIN_WORDS, _MIN_HAN = 3, 6  # minimum length of an input to count as contained in the instruction

# An input that only lists the choices belongs to the instruction.
_CHOICE = re.compile(
    r"(?:(?:answer|reply|respond)(?: with)? )?(?:yes or no|true or false)[.?]?"
    r"|(?:回答)?(?:是或否|对或错|正确或错误)[。？]?",  # noqa: RUF001
    re.IGNORECASE,
)
# Input lines that list the answers to a yes-no question.
_ANSWER_LINE = re.compile(r"\s*(?:[a-d1-4][.):]\s*)?(?:yes|no|true|false)\.?\s*", re.IGNORECASE)
# English statements: no question mark, no sentence that may be a request, no asking word. This rejects one of the 252
# tasks of Self-Instruct's evaluation set and none of 10,000 records of Stanford Alpaca.
_SENTENCE_END = re.compile(r"(?<=[.!:;\n])\s+")
_STATES = re.compile(
    r"[\"'“(]*(?:an?|the|he|she|it|they|we|there|this|that|these|those|one|my|our|his|her|their|its|i|you|some|many|most"
    r"|every|each|all|no)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"[?\uff1f]|\b(?:please|need|want|would|could|can|appreciate|let|like to|have to|must|should|tell|give|help|tasks?"
    r"|your|ask(?:s|ed)?|wonder|know|looking|try|required|given|provided|you will)\b",
    re.IGNORECASE,
)


def read_question(completion: Completion, opening: str = "") -> ParsedTask:
    """Return the task in a user turn: its first line is the instruction, the rest is the input.

    Field names that the model writes (`Input: ...`) are parsed, and an output field ends the task.

    Args:
        completion: the user turn, or its continuation after `opening`.
        opening: words that the user turn began with.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return refused_prompt(completion)
    if cut_short(completion):
        return ParsedTask(Task(opening), TRUNCATED, f"the user turn was truncated ({completion.finish_reason.value})")
    text = unix_lines(opening + completion.text).strip()
    if named := field_pattern("instruction").match(text):
        text = field_value(text[named.end() :], named).strip()
    head, _, rest = text.partition("\n")
    instruction = clean_instruction(head)
    if not instruction:
        return ParsedTask(Task(""), MALFORMED, "the user turn is empty")
    measures = None if completion.confidence is None else {"confidence": completion.confidence}
    draft = ParsedTask(Task(instruction, (Instance("", ""),), measures=measures))
    if found := _FOLLOW_UP.match(instruction):
        draft = draft._replace(rule=FOLLOW_UP, detail=f"refers to an earlier turn: '{found[0].strip()[-40:]}'")
    elif not _ASKS.search(instruction) and all(map(_STATES.match, _SENTENCE_END.split(instruction))):
        draft = draft._replace(rule=NO_REQUEST, detail="a statement without a request")
    return presentable(_read_input(draft, rest))


def with_input(draft: ParsedTask, completion: Completion) -> ParsedTask:
    """Return the parsed task with the input from a completion, or rejected if the completion is truncated.

    Args:
        draft: parsed instruction, not rejected.
        completion: continuation of the instruction.
    """
    if completion.finish_reason is FinishReason.REFUSED:
        return refused_prompt(completion)
    if cut_short(completion):
        return draft._replace(rule=TRUNCATED, detail=f"the input was truncated ({completion.finish_reason.value})")
    return presentable(_read_input(draft, unix_lines(completion.text)))


def stands_alone(instruction: str, lang: Language, *, classification: bool = False) -> bool:
    """Return whether an instruction needs no input: it quotes its text, or refers to no text.

    Args:
        instruction: instruction of a task.
        lang: language of the task.
        classification: whether the task is answered with a label. Choosing a label requires a text, except for yes-no
            questions about a fact.
    """
    if _QUOTED_TEXT.search(instruction):
        return True
    if _OF_A_TEXT.search(instruction):
        return False
    if classification or lang == "zh":  # a Chinese question may be about a text without a word that says so
        return bool(yes_no(instruction, lang))
    return instruction.endswith("?") or bool(_MAKES.match(instruction))


def without_needless_input(draft: ParsedTask, lang: Language) -> ParsedTask:
    """Return the parsed task without its input if the instruction needs none."""
    if draft.rule or not draft.task.input or not stands_alone(draft.task.instruction, lang):
        return draft
    return draft._replace(task=draft.task._replace(instances=(Instance("", ""),)))


def _is_part(text: str, instruction: str) -> bool:
    """Return whether the instruction already contains the whole input."""
    text = text.strip("\"“”'. ")
    long = len(text.split()) >= _MIN_WORDS or len(_HAN.findall(text)) >= _MIN_HAN
    return long and text.casefold() in instruction.casefold()


def _read_input(draft: ParsedTask, text: str) -> ParsedTask:
    """Return the parsed task with the input that follows its instruction, up to an output field."""
    if answered := field_pattern("output").search(text):
        text = text[: answered.start()]
    text = text.strip()
    if named := field_pattern("input").match(text):
        text = field_value(text[named.end() :], named)
    instruction = draft.task.instruction
    if text and _CHOICE.fullmatch(text) and instruction[-1] in '.?!。？！"”':  # noqa: RUF001
        instruction, text = f"{instruction} {text}", ""
    if _is_part(text, instruction) or ("\n" in text and all(map(_ANSWER_LINE.fullmatch, text.split("\n")))):
        text = ""
    task = draft.task._replace(instruction=instruction, instances=(Instance(clean_input(text), ""),))
    if text.count("```") % 2 and not draft.rule:
        return ParsedTask(task, MALFORMED, "an unclosed or unopened code block")
    return draft._replace(task=task)
