"""Finds faults of JSON texts and names the field: those that orjson accepts, and those that it rejects without a name.

orjson silently keeps the last of two equal keys, and reads deeper nesting than it writes. Both change the length of the
text or the number of its colons compared with the value, which is cheap to check. If they differ, or if orjson rejects
the text, the standard `json` finds the reason. It also reads integers beyond 64 bits exactly, where orjson reads the
nearest double.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

# orjson writes 254 levels, and the structure around a record takes some of them.
MAX_DEPTH = 200
SHOWN = 20
MIN_FIELD = len('"":"",')
# orjson reads an integer outside [-2**63, 2**64) as a double, of at least this size.
_LEAST_ROUNDED = 2.0**63
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _FieldFaultError(ValueError):
    """A fault of a field; the message describes it."""


class _Refused(str):
    """A placeholder for a value that JSON cannot represent; its text is the reason."""

    __slots__ = ()


def record_fault(raw: bytes, value: Any) -> str | None:
    """Return the fault that orjson missed in a text it accepted, or None.

    Args:
        raw: the text, in UTF-8.
        value: the value that orjson read from it.
    """
    if _has_no_room(raw, value) or (raw.count(b":") == _colons(value) and not _hides_colons(raw)):
        return None
    return _fault(raw.decode("utf-8"), value)


def array_faults(raw: bytes, values: list[Any]) -> dict[int, str]:
    """Return the faults that orjson missed in the elements of an array, by position from 1; empty if there are none."""
    if raw.count(b":") == _colons(values) and not _hides_colons(raw):
        return {}
    elements = zip(_elements(raw), values, strict=True)
    faults = ((number, _fault(text, value)) for number, (text, value) in enumerate(elements, start=1))
    return {number: fault for number, fault in faults if fault}


def exact(raw: bytes, value: Any) -> Any:
    """Return the value of a text with exact integers beyond 64 bits.

    Args:
        raw: the text, in UTF-8, in which `record_fault` found no fault.
        value: the value that orjson read from it.
    """
    return json.loads(raw) if _may_be_rounded(value) else value


def exact_array(raw: bytes, values: list[Any]) -> list[Any]:
    """Return the elements of an array with exact integers; an element that is nested too deep is unchanged."""
    rounded = {number for number, value in enumerate(values) if _may_be_rounded(value)}
    if not rounded:
        return values
    return [
        json.loads(text) if number in rounded and _colons(value) >= 0 else value
        for number, (text, value) in enumerate(zip(_elements(raw), values, strict=True))
    ]


def field_fault(text: str) -> str | None:
    """Return the fault of a field in a JSON text that orjson rejected, or None if it is not the fault of a field.

    Faults of fields are invalid numbers, numbers too large for a double, lone surrogates and duplicate keys.
    """
    try:
        json.loads(
            text,
            object_pairs_hook=_checked,
            parse_constant=lambda name: _Refused(f"{name} is not a JSON number"),
            parse_float=_number,
            parse_int=_number,
        )
    except _FieldFaultError as fault:
        return str(fault)
    except (ValueError, RecursionError):
        return None
    return None


def _has_no_room(raw: bytes, value: Any) -> bool:
    """Return whether the text of an object of strings, as most records are, is too short for a duplicate key.

    orjson writes the shortest JSON, so a duplicate key would make the text longer. This check comes first because it
    takes half the time of counting colons.
    """
    if type(value) is not dict:
        return False
    for each in value.values():
        if type(each) is not str:
            return False
    return len(raw) - len(orjson.dumps(value)) < MIN_FIELD


def _hides_colons(raw: bytes) -> bool:
    return b"\\" in raw and b"\\u003" in raw  # a colon is \u003a


def _colons(value: Any) -> int:
    """Return the number of colons in the JSON of `value`, separators and strings included; -1 if nested too deep.

    With a duplicate key, the value has fewer colons than the text.
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
    """Return whether a value contains a double that may be a rounded integer beyond 64 bits."""
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
    """Yield the JSON texts of the elements of an array."""
    text = raw.decode("utf-8")
    at = text.index("[") + 1
    # The pattern always matches, if only the empty string.
    while (start := _BETWEEN.match(text, at).end()) < len(text) and text[start] != "]":  # type: ignore[union-attr]
        at = _end(text, start)
        yield text[start:at]


def _fault(text: str, value: Any) -> str | None:
    if _colons(value) < 0:
        return f"nested deeper than {MAX_DEPTH} levels"
    return field_fault(text)


def _end(text: str, start: int) -> int:
    """Return the end of the JSON value that begins at `start` in valid JSON."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError:
        return _end_of_nested(text, start)


def _end_of_nested(text: str, start: int) -> int:
    """Return the end of a JSON value by counting brackets, for nesting too deep for the decoder."""
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
            message = f"field '{key}': duplicate key in one object"
            raise _FieldFaultError(message)
        seen[key] = value
        for each in [key, *value] if isinstance(value, list) else (key, value):
            if isinstance(each, _Refused):
                message = f"field '{key}': {each}"
                raise _FieldFaultError(message)
            if isinstance(each, str) and _SURROGATE.search(each):
                message = f"field '{key}': has a lone surrogate, which is not a character"
                raise _FieldFaultError(message)
    return seen
