"""Atomic writes of files and folders, by writing to a temporary name, syncing and renaming; and checks of paths."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from selfinstruct_local.errors import RunError, UsageError

# Disk full, quota exceeded, limit on the size of files exceeded, disk error.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextmanager
def replace_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file next to `path` that replaces `path` when the block ends without an error.

    If `path` is a link, its target is replaced. The bytes are synced before the rename and the folder after it, so a
    power failure leaves the old or the new file, never a partial one. A killed process leaves at most a hidden
    `.NAME.*.tmp` file next to it.

    Raises:
        RunError: the disk is full or has an error, or a quota or a limit on the size of files is exceeded.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp creates private files; the replacement gets the mode that `open` would give.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            message = f"{path}: cannot be written ({_reason(error)}); free disk space and re-run the same command"
            raise RunError(message) from error
        raise
    sync_folder(target.parent)


@contextmanager
def whole_folder(out: Path, flag: str) -> Iterator[Path]:
    """Yield a hidden folder next to `out` that is renamed to `out` when the block ends without an error, else deleted.

    Raises:
        UsageError: as in `check_new_folder`.
    """
    check_new_folder(out, flag)
    target = out.resolve()
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        folder.chmod(0o777 & ~_umask())
        yield folder
        sync_folder(folder)
        folder.replace(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # other processes may still be writing
        raise
    sync_folder(target.parent)


def obey_umask(folder: Path) -> None:
    """Give everything in a folder the modes that `open` and `mkdir` would have given; other users' files are skipped.

    Libraries write weights to private temporary files and rename them, so only their owner could read them.
    """
    mask = _umask()
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            with suppress(PermissionError):  # owned by another user
                path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename is only durable once its folder is synced)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_name(path: Path, flag: str = "") -> None:
    """Raise UsageError if the name is not UTF-8, because records and reports could not contain it.

    Raises:
        UsageError: the name has bytes that are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        message = f"{flag} {path}: the name is not UTF-8; rename it".strip()
        raise UsageError(message) from error


def check_writable_folder(folder: Path, flag: str) -> None:
    """Create `folder` if it is missing, and raise UsageError if no file can be created in it.

    Raises:
        UsageError: it cannot be created or written to, or its name is not UTF-8.
    """
    check_name(folder, flag)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{flag} {folder}: the folder cannot be written to ({_reason(error)}); name a writable folder"
        raise UsageError(message) from error


def check_new_folder(folder: Path, flag: str) -> None:
    """Raise UsageError if `folder` cannot be created, or exists and is not an empty folder.

    Raises:
        UsageError: it is a file or is not empty, a file system is mounted there, it cannot be created, or its name is
            not UTF-8.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{flag} {folder}: already exists; name a new or empty folder"
        raise UsageError(message)
    if folder.resolve().is_mount():
        message = f"{flag} {folder}: is the mount point of a file system; name a folder in it"
        raise UsageError(message)
    check_name(folder, flag)
    check_writable_folder(folder.resolve().parent, flag)


def check_writable_file(path: Path, flag: str) -> None:
    """Raise UsageError if `path` cannot be written, before work is spent on its content.

    Raises:
        UsageError: it is a folder or a device, its folder cannot be written to, or its name is not UTF-8.
    """
    check_name(path, flag)
    if path.is_dir():
        message = f"{flag} {path}: is a folder; name a file"
        raise UsageError(message)
    if path.exists() and not path.is_file():  # the rename would replace it
        message = f"{flag} {path}: is a device or a pipe; name a file"
        raise UsageError(message)
    check_writable_folder(path.resolve().parent, flag)
