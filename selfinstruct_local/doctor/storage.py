"""Where runs will lie: the folder, its file system, room, and SQLite with a database as runs have it.

Leans on `store/schema.py`, so what is tried is what a run does.
"""

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
# SQLite's own page on WAL: it does not work over a network file system, whose hosts share no memory.
NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "afs", "ocfs2", "gfs2", "fuse")
PASSING = {
    "tmpfs": "lies in memory and is gone when the machine stops",
    "ramfs": "lies in memory and is gone when the machine stops",
    "overlay": "belongs to a container and is gone when that is removed",
}
# 52,000 accepted of three times as many, some 1.5 KB each, as a completion and again as a candidate, are half a GiB;
# the journal and the exports want as much.
MIN_ROOM = GIB
STRICT_TABLES = (3, 37, 0)
COMMITS = 40
COMMIT_SECONDS = 5.0
PAYLOAD = "x" * 4096
# An engine that finishes tens of requests a second has its completions stored in as many transactions.
MIN_COMMITS = 20.0


def existing_folder(out: Path) -> Path:
    """The folder itself, or the nearest above it that is there: a new one would be made on the same disk."""
    path = out.resolve()
    return next(each for each in (path, *path.parents) if os.access(each, os.F_OK))


def check_folder(out: Path) -> Finding:
    """Whether files can be made in `--out`, or the folder itself can be made."""
    place = existing_folder(out)
    if not place.is_dir():
        return Finding("out", "fail", f"--out {out}: {place} is a file", "name a folder")
    try:
        check_writable_folder(place, "--out")
    except UserFacingError as error:
        return Finding.of_error("out", error)
    made = "" if place == out.resolve() else f"; {out} would be made in it"
    return Finding("out", "ok", f"{place} can be written to{made}")


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that a folder lies on.

    Args:
        folder: resolved, without links.
        mounts: as `proc(5)` describes `/proc/PID/mountinfo`; a later line hides an earlier one of the same place.
    """
    best, kind = -1, ""
    for line in mounts.read_bytes().splitlines():
        words = line.split()
        place = Path(os.fsdecode(words[4].decode("unicode_escape").encode("latin-1")))
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), words[words.index(b"-", 6) + 1].decode()
    return kind


def check_file_system(folder: Path, kind: str) -> Finding:
    """Whether what is written there stays, and can be shared as SQLite wants it.

    Args:
        folder: for the words alone.
        kind: its type, as `file_system` tells it.
    """
    if kind.startswith(NETWORK):
        detail = f"{folder}: {kind}, a network file system, over which SQLite's WAL mode is not safe"
        return Finding("file system", "warn", detail, "name a folder on a local disk, and copy exports from there")
    if kind in PASSING:
        detail = f"{folder}: {kind}, {PASSING[kind]}"
        return Finding("file system", "warn", detail, "name a folder on a disk that stays")
    return Finding("file system", "ok", f"{folder}: {kind}")


def check_disk(folder: Path) -> Finding:
    """Room for a run."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free for {folder}"
    if free < MIN_ROOM:
        return Finding("disk", "fail", f"{detail}: a run of 52,000 tasks wants {MIN_ROOM // GIB}", "make room")
    return Finding("disk", "ok", detail)


def check_sqlite(folder: Path) -> Finding:
    """Makes a run's database in a folder of its own, locks it, commits, and tells the pace."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < STRICT_TABLES:
        return Finding("sqlite", "fail", f"SQLite {version} has no STRICT tables (3.37 has)", "a newer Python build")
    try:
        with tempfile.TemporaryDirectory(prefix=".selfinstruct-doctor-", dir=folder) as aside:
            modes, pace = _commit(Path(aside))
    except (UserFacingError, sqlite3.Error, OSError) as error:
        mend = "make room, lift limits (ulimit -f), or name a folder on another disk"
        return Finding("sqlite", "fail", f"{folder}: {error.__cause__ or error}", mend)
    if modes != ("wal", 2):
        detail = f"SQLite {version}: {folder} gives no WAL with synchronous=FULL, but {modes}"
        return Finding("sqlite", "fail", detail, "name a folder on a local disk")
    detail = f"SQLite {version}, WAL, synchronous=FULL: {pace:,.0f} commits/s"
    if pace < MIN_COMMITS:
        return Finding("sqlite", "warn", f"{detail}; an engine would wait for them", "name a folder on a faster disk")
    return Finding("sqlite", "ok", detail)


def _commit(folder: Path) -> tuple[tuple[str, int], float]:
    """The journal's mode, SQLite's level of syncing (2 is FULL), and commits of a second."""
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
