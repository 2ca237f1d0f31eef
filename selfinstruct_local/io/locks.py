"""Locks that keep two processes off one folder: a lock file in it, held as long as the process lives.

Leans on flock, which Linux drops with the last descriptor, however the process ends.
"""

import fcntl
import os
from pathlib import Path

from selfinstruct_local.errors import UsageError


def take_lock(path: Path, where: str, busy: str, *, needs_locks: bool = True) -> int:
    """Takes the lock of a file, which is made; closing the descriptor that is returned lets it go.

    Args:
        path: of the lock file, in a folder that can be written to.
        where: what errors begin with: flag and folder, as `--run runs/week1`.
        busy: what is said when another process holds it, and the mend.
        needs_locks: refuse a file system that knows no locks; else it goes on there without one.

    Raises:
        UsageError: another process holds it, the file is another user's, or its file system knows no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        message = f"{where}: {path.name} cannot be opened ({_reason(error)}); name a folder of your own"
        raise UsageError(message) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        message = f"{where}: {busy}"
        raise UsageError(message) from error
    except OSError as error:
        if needs_locks:
            os.close(descriptor)
            message = f"{where}: its file system has no file locks ({_reason(error)}); name a folder on a local disk"
            raise UsageError(message) from error
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file; no, where that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
