"""Checks of output files: no overwriting of an input or of a run's own files, and no file written twice."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_writable_file
from selfinstruct_local.runs.store.schema import DATABASE, LOCK


def check_targets(targets: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Raise UsageError if an output file cannot be written or would overwrite another file of the command.

    Args:
        targets: output files by flag; None is not written.
        inputs: files that the command reads; None is ignored.

    Raises:
        UsageError: a target is also an input, another target or a run's own file, or it cannot be written.
    """
    taken = {path.resolve(): "the command reads it" for path in inputs if path}
    for flag, path in targets.items():
        if path is None:
            continue
        place = path.resolve()
        if place.name == LOCK or place.name.startswith(DATABASE):  # SQLite keeps its journals next to it
            message = f"{flag} {path}: the name is reserved for the files of a run; choose another name"
            raise UsageError(message)
        if place in taken:
            message = f"{flag} {path}: {taken[place]} too; name another file"
            raise UsageError(message)
        taken[place] = f"is the file of {flag}"
        check_writable_file(path, flag)
