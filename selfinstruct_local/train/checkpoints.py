"""Checkpoint integrity: a manifest with the checksum of each file is written last.

A process killed during a save leaves a checkpoint without a manifest; a failing disk leaves one with wrong checksums.
Both are detected and skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from selfinstruct_local.io.files import checksum, replace_atomically

MANIFEST = "checkpoint.json"
PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder.

    Attributes:
        folder: path of the checkpoint.
        step: number of optimizer steps done.
        fault: why the checkpoint cannot be used; empty for a complete one.
    """

    folder: Path
    step: int
    fault: str


def seal(folder: Path) -> None:
    """Write the manifest of a checkpoint whose other files are complete."""
    files = {str(path.relative_to(folder)): checksum(path) for path in _files(folder)}
    with replace_atomically(folder / MANIFEST) as stream:
        stream.write(orjson.dumps(files, option=orjson.OPT_INDENT_2))


def find_checkpoints(out: Path) -> list[Checkpoint]:
    """Return the checkpoints in a training's folder, latest first, up to and including the first complete one."""
    found = []
    for step, path in sorted(_numbered(out), reverse=True):
        found.append(Checkpoint(path, step, inspect(path)))
        if not found[-1].fault:
            break
    return found


def checkpoint_bytes(out: Path) -> int:
    """Return the size of all checkpoints in a training's folder in bytes, incomplete ones included."""
    files = (file for _, folder in _numbered(out) for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def inspect(folder: Path) -> str:
    """Return why a checkpoint cannot be used, or "" for a complete one."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return "was not completely written"
    try:
        told = orjson.loads(manifest.read_bytes())
    except orjson.JSONDecodeError:
        return f"its {MANIFEST} cannot be read"
    for name, wanted in told.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if checksum(path) != wanted:
            return f"{name} has a wrong checksum"
    return ""


def _numbered(out: Path) -> Iterator[tuple[int, Path]]:
    """Yield (step, folder) of each checkpoint, in no particular order."""
    for path in out.glob(f"{PREFIX}*"):
        step = path.name.removeprefix(PREFIX)
        if step.isdecimal() and path.is_dir():
            yield int(step), path


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
