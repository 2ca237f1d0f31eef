"""What is wrong with a JSON text, told by the field: what orjson reads past, and what it refuses without a name.

orjson keeps the last of two equal keys and says nothing, and reads what is nested deeper than it writes. Both show in
the length of the text or the number of its colons, which cost little to know. Where they do, or where orjson refuses,
the standard `json` says why. It also reads integers beyond 64 bits as they are, where orjson reads the nearest double.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

# orjson writes 254 levels, and what is put around a record takes some of them.
MAX_DEPTH = 200
SHOWN = 20
MIN_FIELD = len('"":"",')
# orjson reads an integer outside [-2**63, 2**64) as a double, of at least this size.
_LEAST_ROUNDED = 2.0**63
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _FieldFaultError(ValueError):
    """What is wrong with a field."""


class _Refused(str):
    """Stands for a value that JSON has no place for; its text says why."""

    __slots__ = ()


def record_fault(raw: bytes, value: Any) -> str | None:
    """What orjson read past in a text that it took, or None.

    Args:
        raw: the text, in UTF-8.
        value: what orjson made of it.
    """
    if _has_no_room(raw, value) or (raw.count(b":") == _colons(value) and not _hides_colons(raw)):
        return None
    return _fault(raw.decode("utf-8"), value)


def array_faults(raw: bytes, values: list[Any]) -> dict[int, str]:
    """The same for each element of an array, by its position counted from 1; empty where nothing is wrong."""
    if raw.count(b":") == _colons(values) and not _hides_colons(raw):
        return {}
    elements = zip(_elements(raw), values, strict=True)
    faults = ((number, _fault(text, value)) for number, (text, value) in enumerate(elements, start=1))
    return {number: fault for number, fault in faults if fault}


def exact(raw: bytes, value: Any) -> Any:
    """Returns what orjson made of a text with its integers beyond 64 bits as they are written.

    Args:
        raw: the text, in UTF-8, of which `record_fault` has nothing to say.
        value: what orjson made of it.
    """
    return json.loads(raw) if _may_be_rounded(value) else value


def exact_array(raw: bytes, values: list[Any]) -> list[Any]:
    """Returns the same for the elements of an array; one that is nested too deep stays as it is."""
    rounded = {number for number, value in enumerate(values) if _may_be_rounded(value)}
    if not rounded:
        return values
    return [
        json.loads(text) if number in rounded and _colons(value) >= 0 else value
        for number, (text, value) in enumerate(zip(_elements(raw), values, strict=True))
    ]


def field_fault(text: str) -> str | None:
    """What is wrong with a field of a JSON text that orjson refused; None if it is no fault of a field.

    Numbers that are none or too large for a double, and halves of surrogate pairs.
    """
    try:
        json.loads(
            text,
            object_pairs_hook=_checked,
            parse_constant=lambda name: _Refused(f"{name} is no number of JSON"),
            parse_float=_number,
            parse_int=_number,
        )
    except _FieldFaultError as fault:
        return str(fault)
    except (ValueError, RecursionError):
        return None
    return None


def _has_no_room(raw: bytes, value: Any) -> bool:
    """Whether a text of an object of texts, which most records are, is too short to hold a key again.

    orjson writes texts as short as JSON lets them be, so a key that stood twice would show in the length. Asked first,
    for it takes half of the time of counting.
    """
    if type(value) is not dict:
        return False
    for each in value.values():
        if type(each) is not str:
            return False
    return len(raw) - len(orjson.dumps(value)) < MIN_FIELD


def _hides_colons(raw: bytes) -> bool:
    return b"\\" in raw and b"\\u003" in raw  # one is \u003a


def _colons(value: Any) -> int:
    """Colons in a JSON text of `value`, between keys and values and inside texts; -1 if it is nested too deep.

    A key that stands twice has left fewer of them in the value than stand in the text.
    """
    count = depth = 0
    level = [value]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return -1
        deeper = []
        for each in level:
            kind = type(each)
            if kind is str:
                count += each.count(":")
            elif kind is dict:
                count += len(each)
                for key, inner in each.items():
                    count += key.count(":")
                    if type(inner) is str:
                        count += inner.count(":")
                    elif inner:
                        deeper.append(inner)
            elif kind is list:
                deeper += each
        level = deeper
    return count


def _may_be_rounded(value: Any) -> bool:
    """Whether a value holds a double that may stand for an integer beyond 64 bits."""
    level = [each for each in value.values() if type(each) is not str] if type(value) is dict else [value]
    while level:
        deeper: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is float:
                if abs(each) >= _LEAST_ROUNDED:
                    return True
            elif kind is dict:
                deeper += [inner for inner in each.values() if type(inner) is not str]
            elif kind is list:
                deeper += each
        level = deeper
    return False


def _elements(raw: bytes) -> Iterator[str]:
    """The texts of the elements of an array."""
    text = raw.decode("utf-8")
    at = text.index("[") + 1
    while (start := _BETWEEN.match(text, at).end()) < len(text) and text[start] != "]":  # type: ignore[union-attr]  # it matches nothing too
        at = _end(text, start)
        yield text[start:at]


def _fault(text: str, value: Any) -> str | None:
    if _colons(value) < 0:
        return f"nested deeper than {MAX_DEPTH} levels"
    return field_fault(text)


def _end(text: str, start: int) -> int:
    """Where the JSON value that begins at `start` ends; the text is JSON."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError:
        return _end_of_nested(text, start)


def _end_of_nested(text: str, start: int) -> int:
    """The same by counting brackets, for what is nested too deep for a decoder."""
    depth = 0
    for token in re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL).finditer(text, start):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth == 0:
            return token.end()
    return len(text)


def _number(digits: str) -> float | _Refused:
    value = float(digits)
    if math.isinf(value):
        return _Refused(f"the number {digits[:SHOWN]}{'...' if len(digits) > SHOWN else ''} is too large")
    return value


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            message = f"field '{key}' stands twice in one object"
            raise _FieldFaultError(message)
        seen[key] = value
        for each in [key, *value] if isinstance(value, list) else (key, value):
            if isinstance(each, _Refused):
                message = f"field '{key}': {each}"
                raise _FieldFaultError(message)
            if isinstance(each, str) and _SURROGATE.search(each):
                message = f"field '{key}': holds half of a surrogate pair, which is no character"
                raise _FieldFaultError(message)
    return seen
