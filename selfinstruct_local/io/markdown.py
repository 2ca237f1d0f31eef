"""Markdown output: data is escaped, so that it stays on one line and is never read as markup."""

from collections.abc import Iterable
from typing import Any

from selfinstruct_local.errors import one_line

_READ_AS_MARKUP = frozenset("\\|<>[]`*_#")


def escaped(text: str) -> str:
    """Return the text with control characters and Markdown markup escaped."""
    return "".join(f"\\{letter}" if letter in _READ_AS_MARKUP else letter for letter in one_line(text))


def pairs_table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    """Return a Markdown table of names and values."""
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {escaped(str(name))} | {escaped(str(value))} |" for name, value in rows)])
