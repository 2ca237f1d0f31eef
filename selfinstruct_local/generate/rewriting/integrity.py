"""Integrity checks of rewritten texts: code, placeholders, numbers, length, lines, and the target language.

Each check compares a source text with its rewritten target and returns the problem, or None. The checks are strict: a
rejected good rewrite costs one task, but an accepted bad one corrupts the data.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal

import orjson

from selfinstruct_local.languages.base import Language

CODE_CHANGED = "code_changed"
PLACEHOLDER_CHANGED = "placeholder_changed"
NUMBERS_CHANGED = "numbers_changed"
LENGTH_CHANGED = "length_changed"
LINES_CHANGED = "lines_changed"
NOT_TRANSLATED = "not_translated"

# Minimum fraction of words in the target language: names and terms keep their letters.
MIN_LANGUAGE_SHARE = 0.5
# The length reveals a text that was answered instead of rewritten. An English text and its Chinese translation have
# about the same number of UTF-8 bytes; differences of up to `FREE_BYTES` are ignored.
MAX_GROWTH = 3
FREE_BYTES = 40

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"(?P<zh>[{_HAN}])|(?P<en>[A-Za-z\u00c0-\u024f]{{2,}})")

_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`"
    # A URL ends where Chinese text continues.
    rf"|(?:https?://|www\.)[^\s\u3000<>\"'`，。；：！？、（）“”《》{_HAN}]+|(?<![\w.+-])[\w.+-]+@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)+",
    re.DOTALL | re.ASCII,
)
_ADDRESS_END = ".,;:!?)"
_CODE_LINE = re.compile(
    r"\s*+(?:(?:def|class|async def) \w+.*:|(?:from \S+ )?import [\w*., ]+"
    r"|(?:if|elif|while|for|with|try|else|except)\b.*:|return\b.*|#include\b.*"
    r"|(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|FROM|WHERE) .+"
    r"|(?:public|private|static|function) .*[;{]|(?:\w+ )+\w+ ?=.*;|[a-z_][\w.]* [-+*/]?= \S.*|[\w.]+\(.*\);?"
    r"|.*\{|\}[;,)]*|(?:</?\w[^<>]*>\s*+)+)\s*",
    re.ASCII,
)

_PLACEHOLDER = re.compile(
    r"\{\{?\s*[^\W\d][\w.-]*\s*\}?\}"
    r"|\[[^\W\d][\w .'’-]*\](?!\()"  # brackets before (...) are the text of a link
    r"|</?[A-Za-z][\w-]*(?:\s[^<>]*)?/?>"
    r"|\$\{?[A-Za-z_]\w*\}?"
    r"|(?<![\d%])%(?:\(\w+\))?(?:\.\d+)?[sdif](?![A-Za-z])"
    r"|_{3,}"
)

_FULL_WIDTH = str.maketrans("０１２３４５６７８９．％", "0123456789.%")
_AMOUNTS = {
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "千": 10**3,
    "万": 10**4,
    "百万": 10**6,
    "千万": 10**7,
    "亿": 10**8,
    "十亿": 10**9,
    "万亿": 10**12,
}
# 千 is also the prefix kilo in 千克 and 千米.
_AMOUNT = rf"(?:\s?({'|'.join(sorted(_AMOUNTS, key=len, reverse=True))})(?![克米瓦卡赫帕焦伏a-z]))?"
_GROUPED = re.compile(rf"(?<![A-Za-z\d])(?<!\d[.])(\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)*){_AMOUNT}")
_SINGLE = re.compile(rf"(?<![A-Za-z\d])(?<!\d[.])(\d+(?:\.\d+)*){_AMOUNT}")
_IN_NAMES = re.compile(r"(?<=[A-Za-z])\d+")

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
)
_ENGLISH = {word: value for value, word in enumerate((_ONES + "eighteen nineteen").split())}
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_TENS_WORDS.split(), 2)}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ENGLISH |= _TENS | {word: value for value, word in enumerate(_ORDINALS.split(), 1)} | {"dozen": 12, "hundred": 100}
_ENGLISH_NUMBER = re.compile(rf"\b(?:({'|'.join(_TENS)})[ -])?({'|'.join(_ENGLISH)})\b", re.IGNORECASE)
_MONTH_WORDS = "January February March April May June July August September October November December"
_MONTHS = {word: str(value) for value, word in enumerate(_MONTH_WORDS.split(), 1)}
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\b")
_MONTH_NUMBER = re.compile(r"(?<!\d)(\d+)月")
_CHINESE_DIGITS = {"零": 0, "〇": 0, "两": 2} | {digit: value for value, digit in enumerate("一二三四五六七八九", 1)}
_CHINESE_POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
# A longer sequence is not a realistic number, and its value would have as many digits.
_MAX_CHINESE_NUMBER = 40
_CHINESE_NUMBER = re.compile(f"[{''.join(_CHINESE_DIGITS)}{''.join(_CHINESE_POWERS)}]+")


def prose(text: str) -> str:
    """Return a text without its code, addresses and placeholders."""
    return _PLACEHOLDER.sub(" ", _CODE.sub(" ", text))


def language_share(text: str, lang: Language) -> float | None:
    """Return the fraction of words of a language in the prose, each Han character a word; None without words."""
    words = Counter(match.lastgroup for match in _WORD.finditer(prose(text)))
    return words[lang] / words.total() if words else None


def language_of(text: str) -> Language | None:
    """Return the language of most words of a text; None without words."""
    share = language_share(text, "zh")
    if share is None:
        return None
    return "zh" if share >= MIN_LANGUAGE_SHARE else "en"


def is_code(text: str) -> bool:
    """Return whether a text is only code or data: JSON, or at least two thirds lines of code."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        else:
            return True
    lines = [line for line in text.splitlines() if line.strip()]
    code = sum(bool(_CODE_LINE.fullmatch(line)) for line in lines)
    return 3 * code >= 2 * len(lines) > 0


def code_changed(source: str, target: str) -> str | None:
    """Return which code in backticks, line of code or address is missing or new, or None; the order may change."""
    lines = [line.strip() for line in _CODE.sub("", source).splitlines() if _CODE_LINE.fullmatch(line)]
    found = {line.strip() for line in target.splitlines()}
    gone = next((line for line in lines if line not in found), None)
    return f"{_short(gone)} is missing" if gone else _difference(_code(source), _code(target))


def placeholder_changed(source: str, target: str) -> str | None:
    """Return which {name}, [name], <tag>, $NAME, %s or blank is missing or new, or None; the order may change."""
    return _difference(*(Counter(_PLACEHOLDER.findall(_CODE.sub(" ", each))) for each in (source, target)))


def numbers_changed(source: str, target: str) -> str | None:
    """Return which number in digits is missing or new, or None; the order may change.

    1,000 equals 1000 and 10,000 equals 1万. A number that the source spells out may become digits, but digits may not
    be spelled out, except for months. A comma may separate thousands or list items: both readings are tried.
    """
    source, target = (prose(each).translate(_FULL_WIDTH) for each in (source, target))
    differences = []
    for pattern in (_GROUPED, _SINGLE):
        before, after = Counter(_numbers(pattern, source)), Counter(_numbers(pattern, target))
        gone = before - after - (Counter(_months(target)) & Counter(_MONTH_NUMBER.findall(source)))
        new = after - before - Counter(_spelled(source)) - Counter(_IN_NAMES.findall(source))
        differences.append(_difference(gone, new))
    return None if None in differences else differences[0]


def length_changed(source: str, target: str) -> str | None:
    """Return the lengths if one text is more than `MAX_GROWTH` times as long as the other, or None."""
    before, after = (len(each.encode()) for each in (source, target))
    if after > MAX_GROWTH * before + FREE_BYTES or before > MAX_GROWTH * after + FREE_BYTES:
        return f"{before} bytes became {after}"
    return None


def lines_changed(source: str, target: str) -> str | None:
    """Return the number of lines if one line became several, or None; extra lines are comments on the text."""
    lines = len(target.strip().splitlines())
    return f"one line became {lines}" if lines > 1 and len(source.strip().splitlines()) == 1 else None


def not_translated(source: str, target: str, lang: Language) -> str | None:
    """Return the problem if a text with words is not in the target language, or None."""
    share = language_share(target, lang)
    if share is None:
        return None if language_of(source) is None else "no words remain"
    if share < MIN_LANGUAGE_SHARE:
        return f"only {share:.0%} of the words are {'Chinese' if lang == 'zh' else 'English'}"
    return None


CHECKS: tuple[tuple[str, Callable[[str, str], str | None]], ...] = (
    (CODE_CHANGED, code_changed),
    (PLACEHOLDER_CHANGED, placeholder_changed),
    (NUMBERS_CHANGED, numbers_changed),
    (LENGTH_CHANGED, length_changed),
    (LINES_CHANGED, lines_changed),
)


def _code(text: str) -> Counter[str]:
    pieces = _CODE.findall(text)
    return Counter(piece if piece.startswith("`") else piece.rstrip(_ADDRESS_END) for piece in pieces)


def _difference(before: Counter[str], after: Counter[str]) -> str | None:
    gone, new = before - after, after - before
    if gone:
        return f"{_short(next(iter(gone)))} is missing"
    return f"{_short(next(iter(new)))} is new" if new else None


def _numbers(pattern: re.Pattern[str], text: str) -> Iterable[str]:
    for digits, amount in pattern.findall(text):
        number = digits.replace(",", "")
        if not amount or number.count(".") > 1:
            yield number
        else:
            yield f"{(Decimal(number) * _AMOUNTS[amount]).normalize():f}"


def _spelled(text: str) -> Iterable[str]:
    """Yield the values of the number words and months in a text."""
    for tens, word in _ENGLISH_NUMBER.findall(text):
        value = _ENGLISH[word.lower()]
        yield str(_TENS[tens.lower()] + value if tens else value)
    for number in _CHINESE_NUMBER.findall(text):
        if len(number) <= _MAX_CHINESE_NUMBER:
            yield str(_chinese_value(number))
    yield from _months(text)


def _months(text: str) -> Iterable[str]:
    return (_MONTHS[name] for name in _MONTH.findall(text))


def _chinese_value(number: str) -> int:
    """Return the value of a number in Chinese characters; 一百二十 is 120."""
    total = section = digit = 0
    for character in number:
        power = _CHINESE_POWERS.get(character)
        if power is None:
            digit = 10 * digit + _CHINESE_DIGITS[character]  # 二〇二一 is read digit by digit
        elif character == "亿":
            total, section, digit = (total + section + digit) * power, 0, 0
        elif character == "万":
            total, section, digit = total + (section + digit) * power, 0, 0
        else:
            section, digit = section + (digit or 1) * power, 0
    return total + section + digit


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return f"'{shown[:40]}...'" if len(shown) > 40 else f"'{shown}'"  # noqa: PLR2004 - fits on one line of a report
