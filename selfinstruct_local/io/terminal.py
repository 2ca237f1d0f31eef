"""Text for a terminal: what the terminal would obey is escaped."""

import sys

import typer

from selfinstruct_local.errors import shown


def echo_data(text: str) -> None:
    """Prints a text on stdout: as it is for a file or a program, and `shown` on a terminal."""
    # Without the colour typer would take out of a file's text what looks like one.
    typer.echo(shown(text) if sys.stdout.isatty() else text, color=True)
