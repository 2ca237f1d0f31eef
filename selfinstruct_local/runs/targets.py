"""Where a command may write: over no file that it reads, over none of a run's own, and not twice to one place.

Leans on: the checks of files, the names of a run's files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_writable_file
from selfinstruct_local.runs.store.schema import DATABASE, LOCK


def check_targets(targets: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Proves that files can be written and cost nothing, before work is spent on them.

    Args:
        targets: each by its flag; None is not written.
        inputs: what the command reads; None is nothing.

    Raises:
        UsageError: one takes the place of an input, of another or of a run's own file, or cannot be written.
    """
    taken = {path.resolve(): "the command reads it" for path in inputs if path}
    for flag, path in targets.items():
        if path is None:
            continue
        place = path.resolve()
        if place.name == LOCK or place.name.startswith(DATABASE):  # SQLite keeps its journals beside it
            message = f"{flag} {path}: the name is kept for a run's own files; name another"
            raise UsageError(message)
        if place in taken:
            message = f"{flag} {path}: {taken[place]} too; name another file"
            raise UsageError(message)
        taken[place] = f"is the file of {flag}"
        check_writable_file(path, flag)
