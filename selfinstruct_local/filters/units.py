"""Unit conversions: the value that an instruction asks for, and whether an output gives it."""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re
from typing import NamedTuple

_UNITS: dict[str, tuple[str, float]] = {}
_BY_KIND: dict[str, dict[str, float]] = {
    "length": {
        "km|kilometers?|kilometres?|千米|公里": 1000,
        "m|meters?|metres?|米": 1,
        "cm|centimeters?|centimetres?|厘米": 0.01,
        "mm|millimeters?|millimetres?|毫米": 0.001,
        "miles?|mi|英里": 1609.344,
        "yards?|yd|码": 0.9144,
        "feet|foot|ft|英尺": 0.3048,
        "inch|inches|英寸": 0.0254,
    },
    "mass": {
        "kg|kilograms?|kilos?|千克|公斤": 1000,
        "g|grams?|克": 1,
        "mg|milligrams?|毫克": 0.001,
        "pounds?|lbs?|磅": 453.59237,
        "ounces?|oz|盎司": 28.349523,
        "斤": 500,
    },
    "volume": {"l|liters?|litres?|升": 1, "ml|milliliters?|millilitres?|毫升": 0.001},
    "time": {
        "days?|天": 86400,
        "hours?|hrs?|小时": 3600,
        "minutes?|mins?|分钟": 60,
        "seconds?|secs?|秒": 1,
        "weeks?|周": 604800,
    },
    "temperature": {
        "(?:degrees? )?celsius|°c|摄氏度": 1,
        "(?:degrees? )?fahrenheit|°f|华氏度": 2,
        "kelvins?": 3,
    },
}
for _kind, _names in _BY_KIND.items():
    for _pattern, _factor in _names.items():
        _UNITS[_pattern] = (_kind, _factor)
_KNOWN = [(re.compile(pattern, re.IGNORECASE), *unit) for pattern, unit in _UNITS.items()]
_UNIT = rf"(?:{'|'.join(_UNITS)})"
# The length is bounded and the match must not be a part of a longer number; otherwise a long number would be scanned
# again from each of its digits.
_NUMBER = r"(?<![\d.,])-?\d{1,15}(?:,\d{3}){0,5}(?:\.\d{1,15})?(?!\d)"
_QUANTITY = rf"(?P<value>{_NUMBER})\s?(?P<source>{_UNIT})"
_END = r"(?=\s*(?:[.?!,。？，]|$))"
_CONVERSIONS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\b(?:convert|change|express)\s(?:the\s)?(?:\w+\s){{0,3}}?(?:of\s)?{_QUANTITY}\s(?:to|into|in|as)\s(?P<target>{_UNIT}){_END}",
        rf"\bhow many\s(?P<target>{_UNIT})\s(?:are\s)?(?:there\s)?in\s{_QUANTITY}{_END}",
        rf"(?:将|把)?{_QUANTITY}(?:换算|转换|等于)(?:成|为|多少)?(?P<target>{_UNIT}){_END}",
    )
)
_TO = re.compile(
    rf"\b(?:convert|change|express)\b[^.?!\n]{{0,200}}\s(?:to|into|in)\s(?P<target>{_UNIT}){_END}", re.IGNORECASE
)
_ONE_QUANTITY = re.compile(rf"\s*{_QUANTITY}[.\s]*", re.IGNORECASE)
_NUMBERS = re.compile(_NUMBER)
_WRITTEN_OTHERWISE = re.compile(
    r"\d\s*/\s*\d|[½¼¾⅓]|\d\s*[×x*]\s*10|\de[+-]?\d|\bmillion|\bbillion|\bthousand|万|亿", re.IGNORECASE
)
_TOLERANCE = 0.01
_FREEZING, _RATIO, _OFFSET = 273.15, 1.8, 32.0


class Conversion(NamedTuple):
    """A conversion that an instruction asks for.

    Attributes:
        quantity: the number and its unit, or None if the input gives them.
        target: the unit to convert to.
    """

    quantity: tuple[str, str] | None
    target: str


def wanted_conversion(instruction: str) -> Conversion | None:
    """Return the conversion that an instruction asks for, or None."""
    for form in _CONVERSIONS:
        if match := form.search(instruction):
            return Conversion((match["value"], match["source"]), match["target"])
    to = _TO.search(instruction)
    return Conversion(None, to["target"]) if to else None


def wrong_conversion(conversion: Conversion, task_input: str, output: str) -> str | None:
    """Return why a conversion is wrong, an empty string if it is right, or None if it cannot be checked."""
    quantity = conversion.quantity
    if quantity is None and (given := _ONE_QUANTITY.fullmatch(task_input)):
        quantity = given["value"], given["source"]
    wanted = _converted(*quantity, conversion.target) if quantity else None
    numbers = [] if wanted is None or _WRITTEN_OTHERWISE.search(output) else _NUMBERS.findall(output)
    if wanted is None or not numbers:
        return None
    for number in numbers:
        decimals = len(number.partition(".")[2])
        if abs(float(number.replace(",", "")) - wanted) <= max(0.51 * 10**-decimals, _TOLERANCE * abs(wanted)):
            return ""
    return f"an output converts to {', '.join(numbers)[:40]}, {wanted:.6g} wanted"


def _converted(value: str, source: str, target: str) -> float | None:
    kind, factor = _known(source)
    other, to = _known(target)
    number = float(value.replace(",", ""))
    if kind != other:
        return None
    if kind != "temperature":
        return number * factor / to
    celsius = {1: number, 2: (number - _OFFSET) / _RATIO, 3: number - _FREEZING}[int(factor)]
    return {1: celsius, 2: celsius * _RATIO + _OFFSET, 3: celsius + _FREEZING}[int(to)]


def _known(unit: str) -> tuple[str, float]:
    return next((kind, factor) for pattern, kind, factor in _KNOWN if pattern.fullmatch(unit))
