"""Text that came from data, a name or a model, for a terminal: what the terminal would obey is shown instead.

Leans on typer alone.
"""

import re
import sys

import typer

# Control characters but line feed and tab, what turns the direction of writing, and what cannot be encoded.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """The text, whose lines stay, with escapes for what a terminal would obey."""
    return _OBEYED.sub(lambda found: _escape(found[0]), text)


def one_line(text: str) -> str:
    """The same with escapes for line feeds and tabs too."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def echo_data(text: str) -> None:
    """Prints a text on stdout: as it is for a file or a program, and `shown` on a terminal."""
    # Without the colour typer would take out of a file's text what looks like one.
    typer.echo(shown(text) if sys.stdout.isatty() else text, color=True)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
