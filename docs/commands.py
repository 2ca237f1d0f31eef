"""Hooks for mkdocs, listed in mkdocs.yml under `hooks`.

They generate the command reference from the typer commands, so that the page matches the program. They arrange the
package as it is installed, so that mkdocstrings finds the modules at the top of the repository. They add Markdown files
of other folders as pages.
"""

import re
import tempfile
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from selfinstruct_local.cli import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

PAGE = "commands.md"
PROGRAM = "selfinstruct"
TOP = Path(__file__).parents[1]
PACKAGE = "selfinstruct_local"
# Subpackages at the top of the repository; pyproject.toml maps them into the package.
MAPPED = ("kernels", "prompts", "seeds")
# Files of other folders, by the page they become, and the picture that one of them shows.
TAKEN_IN = {
    "reference/similarity.md": "kernels/README.md",
    "reference/seeds.md": "seeds/README.md",
    "reference/results.md": "benchmarks/RESULTS.md",
    "reference/growth.png": "benchmarks/growth.png",
}
# click's mark before a paragraph of a help text that is not rewrapped.
KEPT_LINES = "\b\n"

_layout = tempfile.TemporaryDirectory(prefix="selfinstruct-docs-")


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: "MkDocsConfig") -> None:
    """Link the package as it is installed into a temporary folder, and point mkdocstrings to it."""
    package = Path(_layout.name) / PACKAGE
    if not package.is_dir():
        package.mkdir()
        for path in [*(TOP / PACKAGE).iterdir(), *(TOP / name for name in MAPPED)]:
            (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_layout.name]


def on_files(files: Files, *, config: "MkDocsConfig") -> Files:
    """Return the files with those of other folders added."""
    for page, path in TAKEN_IN.items():
        files.append(File.generated(config, page, abs_src_path=str(TOP / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_given: Any) -> str:
    """Return the page, and for the command reference append the commands."""
    if page.file.src_uri != PAGE:
        return markdown
    return "\n\n".join([markdown, *_sections(typer.main.get_command(app), PROGRAM)])


def _sections(command: Any, path: str, above: Any = None) -> Iterator[str]:
    """Yield the sections of a command and of its subcommands."""
    context = typer.Context(command, parent=above, info_name=path.rsplit(maxsplit=1)[-1])
    below = getattr(command, "commands", {})
    if not below:
        yield f"## {path}"
    elif above is None:
        yield "## Global options"
    if not below or above is None:
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
        yield from _paragraphs(command.help or "")
        yield _table([each.get_help_record(context) for each in command.get_params(context) if not _is_hidden(each)])
    for name, each in below.items():
        yield from _sections(each, f"{path} {name}", context)


def _is_hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in cleandoc(text).split("\n\n"):
        if paragraph.startswith(KEPT_LINES):
            yield f"```text\n{paragraph.removeprefix(KEPT_LINES)}\n```"
        else:
            yield " ".join(paragraph.split())


def _table(records: list[Any]) -> str:
    """Return a table of options and arguments with their help."""
    rows = [f"| `{_cell(name)}` | {_plain(_cell(text))} |" for name, text in filter(None, records)]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _plain(text: str) -> str:
    """Return the text with Markdown and HTML markup escaped."""
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")
