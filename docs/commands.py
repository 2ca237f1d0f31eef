"""What mkdocs calls while it builds the documentation; mkdocs.yml names it under `hooks`.

It writes the command reference out of typer's own commands, so that what the page says is what the program takes. It
lays the package out as it is installed, so that mkdocstrings finds the modules that stand at the top of the tree. It
takes in the texts of other folders as pages.
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
# Parts of the package that stand beside it in the tree; pyproject.toml maps them into it.
MAPPED = ("kernels", "prompts", "seeds")
# Texts of other folders, by the page that each becomes, and the picture that one of them shows.
TAKEN_IN = {
    "reference/similarity.md": "kernels/README.md",
    "reference/seeds.md": "seeds/README.md",
    "reference/results.md": "benchmarks/RESULTS.md",
    "reference/growth.png": "benchmarks/growth.png",
}
# What click's help texts put before a paragraph whose lines stay as they are.
KEPT_LINES = "\b\n"

_layout = tempfile.TemporaryDirectory(prefix="selfinstruct-docs-")


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: "MkDocsConfig") -> None:
    """Lays the package out in a temporary folder, by links, and tells mkdocstrings of it."""
    package = Path(_layout.name) / PACKAGE
    if not package.is_dir():
        package.mkdir()
        for path in [*(TOP / PACKAGE).iterdir(), *(TOP / name for name in MAPPED)]:
            (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [_layout.name]


def on_files(files: Files, *, config: "MkDocsConfig") -> Files:
    """Takes in the texts of other folders."""
    for page, path in TAKEN_IN.items():
        files.append(File.generated(config, page, abs_src_path=str(TOP / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_given: Any) -> str:
    """Puts the reference behind what stands in its page."""
    if page.file.src_uri != PAGE:
        return markdown
    return "\n\n".join([markdown, *_sections(typer.main.get_command(app), PROGRAM)])


def _sections(command: Any, path: str, above: Any = None) -> Iterator[str]:
    """The sections of a command and of those below it."""
    context = typer.Context(command, parent=above, info_name=path.rsplit(maxsplit=1)[-1])
    below = getattr(command, "commands", {})
    if not below:
        yield f"## {path}"
    elif above is None:
        yield "## Before the command"
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
    """Options and arguments with what their help says."""
    rows = [f"| `{_cell(name)}` | {_plain(_cell(text))} |" for name, text in filter(None, records)]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _plain(text: str) -> str:
    """The text with what Markdown and HTML would take for marks as they are."""
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")
