"""The limits on words, sentences, lines and bullet points that an instruction states, and whether an output keeps them.

A limit counts only if it applies to the whole answer: not to each part, to a given text, or to words that must be used.
Words and sentences can be counted in several ways, so each text has a lowest and a highest count, and only an output
that breaks the limit under both is at fault.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from selfinstruct_local.languages.base import Language

_SMALL = 10  # a bare number from here on is approximate: "a 100-word story"
_ROUGHLY = 0.5  # allowed relative deviation from an approximate number
_NUMBERS = {"a single": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
_NUMBERS |= {"eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20}
_DIGITS_ZH = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2}

_N = rf"(?:\d{{1,3}}(?:,?\d{{3}})?|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})"
_MOST = (
    r"at most|no more than|not more than|no longer than|up to|(?:a )?max(?:imum)?(?: of)?|less than|fewer than|under"
    r"|within|below|not exceed(?:ing)?"
)
_LEAST = r"at least|no (?:less|fewer) than|not less than|(?:a )?min(?:imum)?(?: of)?|more than|over"
_ABOUT = r"about|around|approximately|roughly|some|nearly|almost|circa"
_EXACT = r"exactly|precisely|just|only"
_PLAIN = r"in|into|to|using|use|with|of|by"
_WRITE = r"(?:write|compose|generate|create|give|provide|construct|make|form|produce)(?: me)?"
_LIMIT = re.compile(
    rf"\b(?:(?P<most>{_MOST})|(?P<least>{_LEAST})|(?P<about>{_ABOUT})|(?P<exact>{_EXACT})|(?P<plain>{_PLAIN})"
    rf"|(?P<noun>an?)|(?P<write>{_WRITE}))\s"
    rf"(?P<low>{_N})(?:\s?(?:-|–|to|or|and)\s?(?P<high>{_N}))?[\s-]"
    r"(?P<unit>word|sentence|line|bullet(?: point)?)"
    r"(?P<plural>s?)\b(?P<after> (?:or (?:less|fewer|under|more)|at (?:the )?(?:most|least)|max(?:imum)?|minimum))?",
    re.IGNORECASE,
)
_OR_LESS = re.compile(
    rf"\b(?P<low>{_N})(?: or (?P<kind>less|fewer|more))(?: than)? (?P<unit>word|sentence|line|bullet(?: point)?)s?\b",
    re.IGNORECASE,
)
# Every limit contains this, and few other instructions do.
_SIZED = re.compile(rf"{_N}(?: or (?:less|fewer|more)(?: than)?)?[\s-](?:word|sentence|line|bullet)", re.IGNORECASE)
# Fewer are allowed: "Shorten this to 8 words."
_SHORTENS = re.compile(r"\b(?:shorten|trim|cut|condense|reduce)\b", re.IGNORECASE)
# What follows "three words" or "one sentence" if they do not measure the answer.
_OF_OTHERS = re.compile(
    r"(?:\s(?:list|lists|that|which|who|whose|from|of|above|below|given|provided|in (?:the|this|each)|starting|ending"
    r"|beginning|containing|rhym\w+|phrases?|title|nouns?|verbs?|adjectives?)\b|:)",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r"\bb\)|\b(?:each|every|per|both|respectively|apiece|then|any|replace|substitute|complete|finish|continue|fill|combine"
    r"|join|merge|split|connect|insert|edit|list of|lines? of code|code|function|program|script|synonyms?|titles?"
    r"|and (?:also |then )?(?:answer|compare|describe|describing|explain|find|give|identify|justify|list|name|say|state"
    r"|tell|use|why|write)|sentence (?:structure|pattern))\b",
    re.IGNORECASE,
)
# "a 100-word story" and "of 100 words" state a length only if the instruction asks for a text.
_WRITES = re.compile(
    rf"(?:^|[.,;!?]\s*|\b(?:and|to|please|a|an)\s)(?:{_WRITE}|answer|capture|come up|craft|describe|draft"
    r"|explain|introduce|output|prepare|rewrite|respond|sum up|summari[sz]e|tell|summary|story|poem|essay)\b",
    re.IGNORECASE,
)

_N_ZH = r"(?:\d{1,4}|[一二两三四五六七八九十百]{1,5})"
_LIMIT_ZH = re.compile(
    rf"(?P<most>不要?超过|不多于|不得?多于|最多|至多|少于|控制在|限)?(?P<least>至少|不少于|不低于|不得少于)?(?P<about>大约|约|大概)?"
    rf"(?P<plain>只用|只能用|请用|用|以)?(?P<low>{_N_ZH})(?:[到至~-](?P<high>{_N_ZH}))?个?(?P<unit>汉?字|句话|句)"
    r"(?P<after>以内|之内|以下|左右|以上|内)?(?P<verb>说清|概括|回答|介绍|总结|说明|描述)?"
)
_PARTS_ZH = re.compile(r"每|各|分别|再|然后|并[^且]|其中|逐|续写|补|填|改|扩|缩|接")

_LIST_MARK = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)、])\s*", re.MULTILINE)
_WORD = re.compile(r"\S*\w\S*")
_WORD_PARTS = re.compile(r"\w+")
_BREAK = re.compile(r"(?:(?<=[.!?。！？])|(?<=[.!?。！？][\"”’')\]*_]))\s+|\n+")
_ABBREVIATED = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|prof|vs|no|etc|e\.g|i\.e|approx|inc|ltd|jr|sr|[a-z])|^\W*\d{1,2})\.$", re.IGNORECASE
)
_NO_SPACE = re.compile(r"(?<=[a-z])[.!?](?=[A-Z])")
_ENDED = re.compile(r"[.!?。！？…][)*_]*$")  # a part that ends in quotes may be only part of a sentence
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+")
_END_ZH = re.compile(r"[。！？!?]+[”』」）)]*|\.(?=\s|$)")
_PIECE_ZH = re.compile(r"[^，。！？；：、,;!?\n]+")

# Every English instruction that sets a limit contains at least one.
UNITS = ("word", "words", "sentence", "sentences", "line", "lines", "bullet", "bullets")


class Limit(NamedTuple):
    """The allowed number of units in an output.

    Attributes:
        unit: `word`, `sentence`, `line`, `bullet point` or `character`.
        least: the lowest allowed number.
        most: the highest allowed number, or infinity.
    """

    unit: str
    least: float
    most: float


def stated_limits(instruction: str, lang: Language) -> list[Limit]:
    """Return the limits that an instruction sets for its whole answer."""
    if lang == "zh":
        return [] if _PARTS_ZH.search(instruction) else list(_limits_zh(instruction))
    if not _SIZED.search(instruction) or _PARTS.search(instruction):
        return []
    return list(_limits(instruction))


def broken_limit(limits: Sequence[Limit], output: str, lang: Language) -> str | None:
    """Return which limit an output breaks, an empty string if it keeps all, or None if none can be checked."""
    counts = {unit: _counts(unit, output, lang) for unit in {limit.unit for limit in limits}}
    told = [limit for limit in limits if counts[limit.unit][1]]
    for limit in told:
        low, high = counts[limit.unit]
        if low <= limit.most and high >= limit.least:
            continue
        count = low if low > limit.most else high
        bound = f"at most {limit.most:g}" if low > limit.most else f"at least {limit.least:g}"
        if limit.least == limit.most:
            bound = f"{limit.most:g}"
        return f"an output has {count} {limit.unit}s, {bound} wanted"
    return "" if told else None


def _limits(instruction: str) -> Iterator[Limit]:
    for match in _OR_LESS.finditer(instruction):
        low = _number(match["low"])
        yield Limit(_unit(match["unit"]), *((low, math.inf) if match["kind"].lower() == "more" else (0, low)))
    writes, shortens = _WRITES.search(instruction), _SHORTENS.search(instruction)
    for match in _LIMIT.finditer(instruction):
        unit = _unit(match["unit"])
        if _OF_OTHERS.match(instruction, match.end()) or (unit == "word" and match["write"]):
            continue
        of_a_text = match["noun"] or (match["plain"] or "").lower() in {"of", "with"}
        if of_a_text and not (writes and writes.end() <= match.start() + 1):
            continue
        low, high = _number(match["low"]), _number(match["high"] or match["low"])
        after = (match["after"] or "").lower()
        if match["most"] or after.endswith(("less", "fewer", "under", "most", "max", "maximum")):
            yield Limit(unit, 0, high)
        elif match["least"] or after:
            yield Limit(unit, low, math.inf)
        elif match["about"] or (low >= _SMALL and not match["exact"]):
            yield Limit(unit, math.floor(low * (1 - _ROUGHLY)), math.ceil(high * (1 + _ROUGHLY)))
        else:
            yield Limit(unit, 0 if shortens else low, high)


def _number(text: str) -> int:
    return _NUMBERS.get(text.lower()) or int(text.replace(",", ""))


def _unit(text: str) -> str:
    return "bullet point" if text.lower().startswith("bullet") else text.lower()


def _limits_zh(instruction: str) -> Iterator[Limit]:
    for match in _LIMIT_ZH.finditer(instruction):
        unit = "character" if match["unit"].endswith("字") else "sentence"
        low, high = _number_zh(match["low"]), _number_zh(match["high"] or match["low"])
        after = match["after"] or ""
        if not low:
            continue
        if match["most"] or after in {"以内", "之内", "以下", "内"}:
            yield Limit(unit, 0, high)
        elif match["least"] or after == "以上":
            yield Limit(unit, low, math.inf)
        elif match["about"] or after == "左右":
            yield Limit(unit, math.floor(low * (1 - _ROUGHLY)), math.ceil(high * (1 + _ROUGHLY)))
        elif match["plain"] or (match["verb"] and unit == "sentence"):
            yield Limit(unit, low, high)


def _number_zh(text: str) -> int:
    """Return the number written in digits or in characters such as 二十五; 0 for anything else."""
    if text.isascii():
        return int(text)
    total = value = 0
    for character in text:
        if character in _DIGITS_ZH:
            value = _DIGITS_ZH[character]
        else:
            total += (value or 1) * (10 if character == "十" else 100)
            value = 0
    return total + value


def _counts(unit: str, output: str, lang: Language) -> tuple[int, int]:
    """Return the lowest and the highest count of a unit in a text over all ways to count; 0 and 0 if there is none."""
    text = output.strip()
    match unit:
        case "word":
            plain = _LIST_MARK.sub("", text)
            return len(_WORD.findall(plain)), len(_WORD_PARTS.findall(plain))
        case "character":
            return len(_HAN.findall(text)), len("".join(text.split()))
        case "line":
            lines = [line for line in text.splitlines() if line.strip()]
            # The first line may be a title; a text in one line may mean the lines on paper.
            return (len(lines) - 1, len(lines)) if len(lines) > 1 else (0, 0)
        case "bullet point":
            marks = [line for line in text.splitlines() if _LIST_MARK.match(line)]
            return len([line for line in marks if not line[:1].isspace()]), len(marks)
        case _ if lang == "zh":
            return max(len(_END_ZH.findall(text)), 1), len(_PIECE_ZH.findall(text))
        case _:
            return _sentences(text)


def _sentences(text: str) -> tuple[int, int]:
    """Return the lowest and the highest number of sentences.

    A break is certain only before a capital letter and not after an abbreviation such as "Dr.".
    """
    parts = [part for part in _BREAK.split(_LIST_MARK.sub("", text)) if part.strip()]
    least = sum(
        1
        for part, after in zip(parts, [*parts[1:], ""], strict=False)
        if _ENDED.search(part) and not _ABBREVIATED.search(part) and not after.lstrip(" \"'“‘(")[:1].islower()
    )
    return max(least, 1), max(len(parts) + len(_NO_SPACE.findall(text)), 1)
