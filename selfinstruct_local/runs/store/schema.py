"""The schema of the run database, its migrations, and how the database is opened and locked.

WAL with synchronous=FULL: a committed transaction survives a power failure. A lock file keeps two processes from
writing to one run.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfinstruct_local.errors import COMMITTED_STANDS, RunError, UsageError, UserFacingError
from selfinstruct_local.io.locks import take_lock

DATABASE = "run.sqlite"
LOCK = "run.lock"

# One entry per schema version; `PRAGMA user_version` is the number of applied ones. Entries are only appended.
MIGRATIONS = (
    """
    CREATE TABLE facts (            -- deciding settings and fingerprints, fixed at creation
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL         -- JSON
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sessions (         -- one row a start: executing settings, engine, outcome
        id INTEGER PRIMARY KEY,
        started_at TEXT NOT NULL,
        settings TEXT NOT NULL,     -- JSON
        engine TEXT NOT NULL,       -- JSON
        seconds REAL,               -- NULL while running, and after a kill
        outcome TEXT
    ) STRICT;
    CREATE TABLE seeds (
        position INTEGER PRIMARY KEY,
        task TEXT NOT NULL          -- JSON
    ) STRICT;
    CREATE TABLE completions (
        job INTEGER NOT NULL,
        stage TEXT NOT NULL,
        branch INTEGER NOT NULL,
        session INTEGER NOT NULL REFERENCES sessions (id),
        text TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        PRIMARY KEY (job, stage, branch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE jobs (             -- the decided ones, always 0 .. n-1
        job INTEGER PRIMARY KEY,
        demonstrations TEXT NOT NULL,   -- JSON array of task ids
        accepted INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE candidates (
        job INTEGER NOT NULL REFERENCES jobs (job),
        position INTEGER NOT NULL,  -- within the job
        instruction TEXT NOT NULL,
        instances TEXT NOT NULL,    -- JSON array of [input, output]
        is_classification INTEGER,
        rule TEXT NOT NULL,         -- what rejected it; empty when accepted
        detail TEXT NOT NULL,
        neighbor TEXT,              -- id of the most similar task, where one was sought
        score REAL,                 -- ROUGE-L F with it
        PRIMARY KEY (job, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX candidates_by_rule ON candidates (rule);
    """,
    # Counts are stored with each decided job, so that the totals of a run with millions of completions are fast. Also
    # new: tasks inherited from other runs and files; tokens served by the engine's prefix cache; and for each session,
    # as JSON, its time by activity and the load of the engine.
    """
    CREATE TABLE inherited (        -- accepted elsewhere: in the pool before job 0
        position INTEGER PRIMARY KEY,
        task TEXT NOT NULL,         -- JSON
        origin TEXT NOT NULL        -- JSON: which file or run, and its row or id there
    ) STRICT;
    ALTER TABLE completions ADD COLUMN cached_tokens INTEGER;
    ALTER TABLE jobs ADD COLUMN completions INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET (completions, prompt_tokens, completion_tokens) = (
        SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)
        FROM completions WHERE completions.job = jobs.job
    );
    ALTER TABLE sessions ADD COLUMN measured TEXT;
    INSERT INTO facts SELECT 'lang', '"en"' WHERE EXISTS (SELECT * FROM facts);
    INSERT INTO facts SELECT 'quantization', 'null' WHERE EXISTS (SELECT * FROM facts);
    INSERT INTO facts SELECT 'adapter_fingerprint', 'null' WHERE EXISTS (SELECT * FROM facts);
    """,
    # Confidence of the engine (mean log-probability per token, nats); measured values of a candidate (a JSON object).
    """
    ALTER TABLE completions ADD COLUMN confidence REAL;
    ALTER TABLE candidates ADD COLUMN measures TEXT;
    """,
    # Requests that kill the engine: which were in flight when it died, and why a request was given up.
    """
    CREATE TABLE deaths (           -- of the engine, by request; those with a completion are cleared or given up
        job INTEGER NOT NULL,
        stage TEXT NOT NULL,
        branch INTEGER NOT NULL,
        together INTEGER NOT NULL,  -- requests in flight at the last death, this one included
        alone INTEGER NOT NULL,     -- deaths with nothing else in flight
        reason TEXT NOT NULL,       -- how the engine died last
        PRIMARY KEY (job, stage, branch)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE completions ADD COLUMN given_up TEXT NOT NULL DEFAULT '';
    """,
)


def open_database(folder: Path, *, read_only: bool) -> sqlite3.Connection:
    """Return a connection to the run's database with the newest schema; create it unless `read_only`.

    A writer must hold the run's lock; a reader takes the lock only during a migration.

    Raises:
        UsageError: the database is missing, corrupt, or newer than this program; or, for a reader, it is empty, or it
            has an older schema that cannot be migrated now.
        RunError: the disk is full or has an error.
    """
    path = folder / DATABASE
    if read_only and not path.is_file():
        message = f"--run {folder}: not a run ({DATABASE} is missing); name the folder of a run"
        raise UsageError(message)
    mode = _reading_mode(path) if read_only else "mode=rwc"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)
        try:
            if read_only:
                _prepare_reading(connection, folder)
            else:
                _prepare_writing(connection, folder)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, folder, read_only=read_only) from error
    return connection


def _reading_mode(path: Path) -> str:
    """Return the mode in which a reader opens the database.

    In WAL mode a reader writes a shared-memory file next to the database. If the folder is not writable and has no WAL
    file, the database is complete and no process is writing to it, so it is opened as immutable.
    """
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{DATABASE}-wal").exists()
    return "mode=ro&immutable=1" if alone else "mode=rw"


def _prepare_reading(connection: sqlite3.Connection, folder: Path) -> None:
    version = _version(connection, folder)
    if version == 0:
        message = f"--run {folder}: not a run yet ({DATABASE} is empty); start it with 'selfinstruct generate'"
        raise UsageError(message)
    if version < len(MIGRATIONS):
        old = f"was created by an older version of this program (schema {version}, now {len(MIGRATIONS)})"
        if not os.access(folder, os.W_OK):
            message = f"--run {folder}: {old}; copy it to a writable folder and read it there"
            raise UsageError(message)
        busy = f"{old}, and another process is using it; wait until that process ends"
        lock = take_lock(folder / LOCK, f"--run {folder}", busy)
        try:
            _prepare_writing(connection, folder)
        finally:
            os.close(lock)
    connection.execute("PRAGMA query_only = ON")


def _prepare_writing(connection: sqlite3.Connection, folder: Path) -> None:
    outdated = _version(connection, folder) < len(MIGRATIONS)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if not outdated:
        return
    # In one transaction, so that a reader sees the old schema or the newest one, and nothing in between.
    with transaction(connection):
        for script in MIGRATIONS[_version(connection, folder) :]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection, folder: Path) -> int:
    """Return the number of applied migrations.

    Raises:
        UsageError: the database is from a newer version of this program.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        message = (
            f"--run {folder}: created by a newer version of this program "
            f"(schema {version}, known {len(MIGRATIONS)}); update the program, or name another folder"
        )
        raise UsageError(message)
    return version


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction: commit it at the end, or roll it back on an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite has already rolled it back if the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def explain(error: sqlite3.Error, folder: Path, *, read_only: bool) -> UserFacingError:
    """Return the user-facing error for an SQLite error; for a reader it does not suggest to resume."""
    text = str(error)
    if not isinstance(error, sqlite3.OperationalError):
        return UsageError(
            f"--run {folder}: {DATABASE} cannot be read ({text}); it was not changed; restore it from a copy"
        )
    if read_only:
        return RunError(
            f"--run {folder}: {DATABASE} cannot be read in this folder ({text}); copy it to a writable disk with free "
            "space and read it there"
        )
    if "full" in text:
        return RunError(f"--run {folder}: the disk is full: free disk space; {COMMITTED_STANDS}")
    if "disk I/O" in text or "too large" in text:
        return RunError(
            f"--run {folder}: {DATABASE} cannot be written to ({text}: a disk error, or a limit on the size of files); "
            f"fix the cause; {COMMITTED_STANDS}"
        )
    return RunError(f"--run {folder}: {DATABASE}: {text}; {COMMITTED_STANDS}")


def lock_run(folder: Path) -> int:
    """Take the run's lock and return its file descriptor; closing it, or the end of the process, releases the lock.

    Raises:
        UsageError: another process holds the lock, or the file system has no locks.
    """
    busy = "another process is using this run; wait until that process ends, or name another folder"
    return take_lock(folder / LOCK, f"--run {folder}", busy)
