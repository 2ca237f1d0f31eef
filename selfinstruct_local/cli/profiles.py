"""`selfinstruct profiles`."""

import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

import typer

WIDTH = 80
INDENT = 2
COLUMN = 18  # where values begin


def profiles(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False) -> None:
    """List the profiles, which are the ways of asking for tasks, and what differs between them."""
    import orjson

    from selfinstruct_local.generate.profiles.registry import PROFILES, describe_profile

    for number, name in enumerate(PROFILES):
        facts = describe_profile(name)
        if as_json:
            typer.echo(orjson.dumps(facts).decode())
        else:
            typer.echo("\n" * bool(number) + "\n".join(_lines(facts)))


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """A profile for a person: its name, its summary, then a line or more for each other fact that says anything."""
    margin = " " * INDENT
    lines = [facts["profile"], *textwrap.wrap(facts["summary"], WIDTH, initial_indent=margin, subsequent_indent=margin)]
    for name, value in facts.items():
        if name in {"profile", "summary"} or value in ([], {}):
            continue
        title = f"{margin}{name.replace('_', ' ')}".ljust(COLUMN)
        for text in value if isinstance(value, list) else [_text(value)]:
            lines += textwrap.wrap(
                text, WIDTH, initial_indent=title, subsequent_indent=" " * COLUMN, break_on_hyphens=False
            )
            title = " " * COLUMN
    return lines


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {each}" for name, each in value.items())
    return str(value)
