"""The built-in prompt templates, one text file each, and templates of the user that replace them.

A template has `$name` placeholders (`string.Template`). Data is inserted unchanged: braces, dollar signs and
special-token text inside it are never interpreted as part of the template.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

SUFFIX = ".txt"
# Files in a prompts folder that describe the folder; they are ignored, like hidden files.
_ABOUT = frozenset({"readme", "readme.md", "readme.txt"})


def prompt_names() -> list[str]:
    """Return the names of the built-in templates, sorted."""
    names = (each.name for each in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def load_prompt(name: str) -> Template:
    """Return the built-in template in `prompts/NAME.txt`, without its last line break.

    Raises:
        FileNotFoundError: no such template exists.
    """
    text = resources.files(__name__).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return Template(text.removesuffix("\n"))


@dataclass(frozen=True)
class Prompts:
    """The templates of a run: the built-in ones, except for those that the user's folder replaces.

    Attributes:
        folder: folder of the user's templates; None if there is none.
        own: texts of the user's templates by name, where they differ from the built-in ones.
    """

    folder: Path | None = None
    own: Mapping[str, str] = field(default_factory=dict)

    def load(self, name: str) -> Template:
        """Return the template `name`, without its last line break.

        Raises:
            FileNotFoundError: no such template exists.
        """
        return Template(self.own[name]) if name in self.own else load_prompt(name)

    def used(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the text of each named template and whether it is the user's own, as JSON values."""
        return {name: {"text": self.load(name).template, "own": name in self.own} for name in names}

    def note_unused(self, names: Iterable[str], user: str) -> str:
        """Return a note on the user's templates that are not in `names`, the templates that `user` uses; "" if none."""
        unused = ", ".join(f"{name}{SUFFIX}" for name in sorted(set(self.own) - set(names)))
        return f"note: --prompts {self.folder}: {user} does not use {unused}" if unused else ""


def read_prompts(folder: Path) -> Prompts:
    """Return the built-in templates, replaced by those in `folder` with the same names.

    Args:
        folder: folder of `NAME.txt` files in UTF-8, with or without a byte-order mark, with any line endings.

    Raises:
        ValueError: the folder cannot be read or holds no template, or one of its files is invalid; the message names
            the file.
    """
    try:
        files = sorted(each for each in folder.iterdir() if not _is_ignored(each.name))
    except NotADirectoryError as error:
        message = "not a folder; name the folder that holds the templates"
        raise ValueError(message) from error
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from error
    if not files:
        message = "holds no template; 'selfinstruct profiles --export DIR' writes the built-in ones to start from"
        raise ValueError(message)
    known = prompt_names()
    texts: dict[str, str] = {}
    for file in files:
        name = file.name.removesuffix(SUFFIX)
        if name not in known or not file.name.endswith(SUFFIX):
            near = [f"{each}{SUFFIX}" for each in get_close_matches(file.stem.lower(), known)]
            hint = f"nearest: {', '.join(near)}" if near else "'selfinstruct profiles --export DIR' writes them all"
            told = file.name.encode(errors="backslashreplace").decode()  # file names may hold invalid UTF-8
            message = f"{told}: no built-in template has this name ({hint})"
            raise ValueError(message)
        texts[name] = _read(file)
        if fault := _fault(texts[name], load_prompt(name)):
            message = f"{file.name}: {fault}"
            raise ValueError(message)
    return Prompts(folder, {name: text for name, text in texts.items() if text != load_prompt(name).template})


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _ABOUT


def _read(file: Path) -> str:
    """Return the text of a template with line feeds as line endings, without the last one."""
    if not file.is_file():
        message = f"{file.name}: not a file"
        raise ValueError(message)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        message = f"{file.name}: {(error.strerror or str(error)).lower()}"
        raise ValueError(message) from error
    except UnicodeDecodeError as error:
        message = f"{file.name}: not UTF-8 (byte {error.start + 1}); save it as UTF-8"
        raise ValueError(message) from error
    if "\0" in text:
        message = f"{file.name}: holds a NUL character; save it as UTF-8 text"
        raise ValueError(message)
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _fault(text: str, built_in: Template) -> str | None:
    """Return why a text cannot replace a built-in template, or None."""
    if not text.strip():
        return "is empty; write a template, or delete the file to use the built-in one"
    for found in Template.pattern.finditer(text):
        if found["invalid"] is not None:
            line = text.count("\n", 0, found.start()) + 1
            return f"line {line}: a lone '$'; write '$$' for a dollar sign"
    here, there = set(Template(text).get_identifiers()), set(built_in.get_identifiers())
    if unknown := sorted(here - there):
        allowed = _placeholders(there) or "none"
        return f"unknown placeholder {_placeholders(unknown)} (allowed: {allowed}; write '$$' for a dollar sign)"
    if missing := there - here:
        return f"lacks the placeholder {_placeholders(missing)}, which the built-in template has; put it back"
    return None


def _placeholders(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names))
