"""Locks that keep two processes from writing to one folder: a lock file in it, held while the process lives.

The locks use flock, which Linux releases with the last file descriptor, however the process ends.
"""

import fcntl
import os
from pathlib import Path

from selfinstruct_local.errors import UsageError


def take_lock(path: Path, where: str, busy: str, *, needs_locks: bool = True) -> int:
    """Take the lock of a file, created if missing, and return its file descriptor; closing it releases the lock.

    Args:
        path: lock file, in a writable folder.
        where: start of error messages: flag and folder, such as `--run runs/week1`.
        busy: error message if another process holds the lock, with the fix.
        needs_locks: whether to raise if the file system has no locks; otherwise the lock is skipped there.

    Raises:
        UsageError: another process holds the lock, another user owns the file, or its file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        message = f"{where}: {path.name} cannot be opened ({_reason(error)}); name a folder that you own"
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
    """Return whether a process holds the lock of a file; False if it cannot be determined."""
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
