"""Files and folders that are whole or absent: writing aside, syncing and renaming; and checks before any work.

Leans on nothing of the project but its errors.
"""

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

# No space on the device, over a quota, over the limit on the size of files, a failing device.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextmanager
def replace_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error.

    Of a link the file that it names is replaced. The bytes are synced before the rename and the folder after it, so a
    power cut leaves the old file or the new one, never half of either. A kill leaves at most a hidden `.NAME.*.tmp`
    file beside it.

    Raises:
        RunError: the disk is full, or the file cannot be written for another reason.
    """
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; what replaces a shared file gets the mode `open` would give.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            message = f"{path}: cannot be written ({_reason(error)}); make room and give the same command again"
            raise RunError(message) from error
        raise
    sync_folder(target.parent)


@contextmanager
def whole_folder(out: Path, flag: str) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name when the block ends without an error, and goes otherwise.

    Raises:
        UsageError: as `check_new_folder`.
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
    """Gives all in a folder of one's own the modes that `open` and `mkdir` would have given.

    Libraries write weights aside in private files and rename them, which leaves them readable by their owner only.
    """
    mask = _umask()
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            with suppress(PermissionError):  # another user's
                path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable (a rename is only safe once its folder is synced)."""
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
    """Refuses a name that is no text: no record or report could say where something lies.

    Raises:
        UsageError: the name holds bytes that are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        message = f"{flag} {path}: the name is not UTF-8; rename it".strip()
        raise UsageError(message) from error


def check_writable_folder(folder: Path, flag: str) -> None:
    """Makes `folder` if it is missing and proves that a file can be made in it.

    Raises:
        UsageError: it cannot be made or written to, or its name is no text.
    """
    check_name(folder, flag)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{flag} {folder}: the folder cannot be written to ({_reason(error)}); name one that can"
        raise UsageError(message) from error


def check_new_folder(folder: Path, flag: str) -> None:
    """Proves that `folder` can be made, or that nothing is lost where it is replaced.

    Raises:
        UsageError: it is a file or holds something, a file system is mounted there, it cannot be made, or its name
            is no text.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{flag} {folder}: is there already; name a folder that is missing or empty"
        raise UsageError(message)
    if folder.resolve().is_mount():
        message = f"{flag} {folder}: a whole file system is mounted there; name a folder in it"
        raise UsageError(message)
    check_name(folder, flag)
    check_writable_folder(folder.resolve().parent, flag)


def check_writable_file(path: Path, flag: str) -> None:
    """Proves that `path` can be written before work is spent on its content.

    Raises:
        UsageError: it is a folder or a device, its folder cannot be written to, or its name is no text.
    """
    check_name(path, flag)
    if path.is_dir():
        message = f"{flag} {path}: is a folder; name a file"
        raise UsageError(message)
    if path.exists() and not path.is_file():  # the rename would take its place
        message = f"{flag} {path}: is a device or a pipe; name a file"
        raise UsageError(message)
    check_writable_folder(path.resolve().parent, flag)
