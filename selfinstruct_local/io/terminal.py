"""Prints data on stdout, with control characters escaped on a terminal."""

import sys

import typer

from selfinstruct_local.errors import shown


def echo_data(text: str) -> None:
    """Print a text on stdout, unchanged for a file or a program, and with `shown` for a terminal."""
    # With color=None, typer would strip ANSI sequences from a text that is written to a file.
    typer.echo(shown(text) if sys.stdout.isatty() else text, color=True)
