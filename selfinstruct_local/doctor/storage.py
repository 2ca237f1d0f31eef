"""Checks of the output folder: permissions, file system, free space, and SQLite with the database schema of a run."""

import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from selfinstruct_local.doctor.finding import Finding
from selfinstruct_local.errors import UserFacingError
from selfinstruct_local.io.files import check_writable_folder
from selfinstruct_local.runs.store.schema import lock_run, open_database, transaction

GIB = 1 << 30
# WAL does not work over a network file system, since the hosts share no memory (SQLite's documentation of WAL).
NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "afs", "ocfs2", "gfs2", "fuse")
PASSING = {
    "tmpfs": "in memory, lost when the machine stops",
    "ramfs": "in memory, lost when the machine stops",
    "overlay": "part of a container, lost when the container is removed",
}
# A run of 52,000 accepted tasks has three times as many candidates of about 1.5 KB, each stored as a completion and as
# a candidate: half a GiB. The journal and the exports need the same again.
MIN_ROOM = GIB
STRICT_TABLES = (3, 37, 0)
COMMITS = 40
COMMIT_SECONDS = 5.0
PAYLOAD = "x" * 4096
# An engine that finishes tens of requests per second needs one transaction per request.
MIN_COMMITS = 20.0


def existing_folder(out: Path) -> Path:
    """Return the folder, or its nearest existing parent, which is on the disk where the folder would be created."""
    path = out.resolve()
    return next(each for each in (path, *path.parents) if os.access(each, os.F_OK))


def check_folder(out: Path) -> Finding:
    """Check that `--out` is writable, or can be created."""
    place = existing_folder(out)
    if not place.is_dir():
        return Finding("out", "fail", f"--out {out}: {place} is a file", "name a folder")
    try:
        check_writable_folder(place, "--out")
    except UserFacingError as error:
        return Finding.of_error("out", error)
    made = "" if place == out.resolve() else f"; {out} would be created in it"
    return Finding("out", "ok", f"{place} is writable{made}")


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the file system type of a folder, such as `ext4`.

    Args:
        folder: a resolved path, without symbolic links.
        mounts: file in the format of `/proc/PID/mountinfo` (see `proc(5)`); a later line overrides an earlier one with
            the same mount point.
    """
    best, kind = -1, ""
    for line in mounts.read_bytes().splitlines():
        words = line.split()
        place = Path(os.fsdecode(words[4].decode("unicode_escape").encode("latin-1")))
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), words[words.index(b"-", 6) + 1].decode()
    return kind


def check_file_system(folder: Path, kind: str) -> Finding:
    """Check that a file system is persistent and supports SQLite's WAL mode.

    Args:
        folder: the folder, for the messages only.
        kind: file system type, from `file_system`.
    """
    if kind.startswith(NETWORK):
        detail = f"{folder}: {kind}, a network file system, on which SQLite's WAL mode is not safe"
        return Finding("file system", "warn", detail, "name a folder on a local disk, and copy the exports")
    if kind in PASSING:
        detail = f"{folder}: {kind}, {PASSING[kind]}"
        return Finding("file system", "warn", detail, "name a folder on a persistent disk")
    return Finding("file system", "ok", f"{folder}: {kind}")


def check_disk(folder: Path) -> Finding:
    """Check that the disk has enough free space for a run."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free for {folder}"
    if free < MIN_ROOM:
        return Finding("disk", "fail", f"{detail}: a run of 52,000 tasks needs {MIN_ROOM // GIB}", "free disk space")
    return Finding("disk", "ok", detail)


def check_sqlite(folder: Path) -> Finding:
    """Check SQLite with a run's database in a temporary folder: locking, journal mode and commits per second."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < STRICT_TABLES:
        return Finding("sqlite", "fail", f"SQLite {version}: STRICT tables need 3.37", "use a newer Python build")
    try:
        with tempfile.TemporaryDirectory(prefix=".selfinstruct-doctor-", dir=folder) as aside:
            modes, pace = _commit(Path(aside))
    except (UserFacingError, sqlite3.Error, OSError) as error:
        mend = "free disk space, raise limits (ulimit -f), or name a folder on another disk"
        return Finding("sqlite", "fail", f"{folder}: {error.__cause__ or error}", mend)
    if modes != ("wal", 2):
        detail = f"SQLite {version}: {folder} does not support WAL with synchronous=FULL, only {modes}"
        return Finding("sqlite", "fail", detail, "name a folder on a local disk")
    detail = f"SQLite {version}, WAL, synchronous=FULL: {pace:,.0f} commits/s"
    if pace < MIN_COMMITS:
        return Finding("sqlite", "warn", f"{detail}; slows the engine down", "name a folder on a faster disk")
    return Finding("sqlite", "ok", detail)


def _commit(folder: Path) -> tuple[tuple[str, int], float]:
    """Return ((journal mode, synchronous level), commits per second); level 2 is FULL."""
    lock = lock_run(folder)
    try:
        database = open_database(folder, read_only=False)
        try:
            modes = tuple(database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))
            began, done = time.perf_counter(), 0
            while done < COMMITS and time.perf_counter() - began < COMMIT_SECONDS:
                with transaction(database):
                    database.execute("INSERT INTO facts VALUES (?, ?)", (str(done), PAYLOAD))
                done += 1
            return (str(modes[0]), int(modes[1])), done / (time.perf_counter() - began)
        finally:
            database.close()
    finally:
        os.close(lock)
