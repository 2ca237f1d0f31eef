"""`selfinstruct profiles`."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selfinstruct_local.cli.choices import PROFILES, check_choice, completing
from selfinstruct_local.errors import one_line

WIDTH = 80
INDENT = 2
COLUMN = 18  # column of the values


def profiles(
    *,
    profile: Annotated[
        str | None, typer.Option(help="Single profile to show. [default: all]", autocompletion=completing(PROFILES))
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for the prompt templates, to edit and use with --prompts."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run whose prompt templates --export writes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List the generation profiles and how they differ.

    With --export, write prompt templates: those of --profile under any settings, those of --run, or those of all
    commands.
    """
    import orjson

    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.generate.profiles.registry import PROFILES as REGISTERED
    from selfinstruct_local.generate.profiles.registry import describe_profile

    if profile is not None:
        check_choice("--profile", profile, PROFILES)
    if run is not None and (export is None or profile is not None):
        message = f"--run {run}: use it with --export and without --profile"
        raise UsageError(message)
    if export is not None:
        if as_json:
            message = "--json --export: use only one of them"
            raise UsageError(message)
        _export(export, _texts(profile, run))
        return
    for number, name in enumerate(each for each in REGISTERED if profile in {None, each}):
        facts = describe_profile(name)
        if as_json:
            typer.echo(orjson.dumps(facts).decode())
        else:
            typer.echo("\n" * bool(number) + "\n".join(_lines(facts)))


def _texts(profile: str | None, run: Path | None) -> dict[str, str]:
    """Return the templates to export, by name."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.generate.profiles.registry import PROFILES as REGISTERED
    from selfinstruct_local.generate.profiles.registry import prompts_of
    from selfinstruct_local.prompts import load_prompt, prompt_names
    from selfinstruct_local.runs.store import RunStore

    if run is not None:
        with RunStore(run, read_only=True) as store:
            stored = store.facts().get("prompt_texts")
        if not stored:
            message = f"--run {run}: stores no prompts; it was not started, or is from an older release"
            raise UsageError(message)
        return {name: each["text"] for name, each in stored.items()}
    chosen = [name for name in REGISTERED if name == profile]
    names = prompts_of(chosen[0]) if chosen else prompt_names()
    return {name: load_prompt(name).template for name in names}


def _export(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the templates as `--prompts` reads them, and print the file names."""
    from selfinstruct_local.io.files import check_new_folder, replace_atomically
    from selfinstruct_local.prompts import SUFFIX

    check_new_folder(folder, "--export")
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / f"{name}{SUFFIX}"
        with replace_atomically(path) as stream:
            stream.write(f"{text}\n".encode())
        typer.echo(one_line(str(path)))


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """Return a profile as text: its name, its summary, then at least one line for each other non-empty fact."""
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
