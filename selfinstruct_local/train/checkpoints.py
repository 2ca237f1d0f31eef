"""Checkpoints that are whole or not taken: a manifest with the checksum of each file is written last.

A kill while one is written leaves a folder without a manifest, a failing disk one that its checksums do not fit; both
are seen and passed over. Leans on nothing of the project but `files.py`.
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
        folder: where it lies.
        step: optimizer steps done.
        fault: why it cannot be used; empty for a whole one.
    """

    folder: Path
    step: int
    fault: str


def seal(folder: Path) -> None:
    """Writes the manifest of a checkpoint whose files are all there."""
    files = {str(path.relative_to(folder)): checksum(path) for path in _files(folder)}
    with replace_atomically(folder / MANIFEST) as stream:
        stream.write(orjson.dumps(files, option=orjson.OPT_INDENT_2))


def find_checkpoints(out: Path) -> list[Checkpoint]:
    """The checkpoints in a training's folder, the latest first, down to the first whole one."""
    found = []
    for step, path in sorted(_numbered(out), reverse=True):
        found.append(Checkpoint(path, step, inspect(path)))
        if not found[-1].fault:
            break
    return found


def checkpoint_bytes(out: Path) -> int:
    """What the checkpoints in a training's folder take on the disk, torn ones too."""
    files = (file for _, folder in _numbered(out) for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def inspect(folder: Path) -> str:
    """Why a checkpoint cannot be used; empty for a whole one."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return "was not written to its end"
    try:
        told = orjson.loads(manifest.read_bytes())
    except orjson.JSONDecodeError:
        return f"its {MANIFEST} cannot be read"
    for name, wanted in told.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if checksum(path) != wanted:
            return f"{name} is not as it was written"
    return ""


def _numbered(out: Path) -> Iterator[tuple[int, Path]]:
    """Steps and folders, in no order."""
    for path in out.glob(f"{PREFIX}*"):
        step = path.name.removeprefix(PREFIX)
        if step.isdecimal() and path.is_dir():
            yield int(step), path


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
