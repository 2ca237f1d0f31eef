"""The tables of a run, how they change from version to version, and how a database is opened and given up.

WAL with synchronous=FULL: a committed transaction survives a power cut. A lock file keeps two processes off one run.
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

# One entry a schema version; `PRAGMA user_version` says how many were applied. Entries are only ever added.
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
    # Counts stand with the decided job, so that a run of millions tells its totals without reading every completion;
    # tasks taken over from other runs and files; what the engine's prefix cache served; and of each session, as JSON,
    # where its time went and how full it kept the engine.
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
    # How sure the engine was (mean log-probability a token, nats); what was measured of a candidate (a JSON object).
    """
    ALTER TABLE completions ADD COLUMN confidence REAL;
    ALTER TABLE candidates ADD COLUMN measures TEXT;
    """,
    # Requests that an engine dies of: who was in flight at the deaths, and why a request was given up.
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
    """Opens the run's database in its newest form; makes it unless `read_only`.

    Whoever opens it for writing holds the run's lock; a reader takes it for as long as an older form is made new.

    Raises:
        UsageError: it is missing, corrupt, or newer than this program; or for a reader, it is not made yet, or of an
            older form that cannot be made new now.
        RunError: the disk is full or fails.
    """
    path = folder / DATABASE
    if read_only and not path.is_file():
        message = f"--run {folder}: no run there ({DATABASE} is missing)"
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
    """How a reader opens the database: in WAL mode it has to write a shared-memory file beside it.

    Where it may not, and no log of a writer lies there, the database is whole and nobody is at work on it.
    """
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{DATABASE}-wal").exists()
    return "mode=ro&immutable=1" if alone else "mode=rw"


def _prepare_reading(connection: sqlite3.Connection, folder: Path) -> None:
    version = _version(connection, folder)
    if version == 0:
        message = f"--run {folder}: no run there yet ({DATABASE} is empty)"
        raise UsageError(message)
    if version < len(MIGRATIONS):
        old = f"was made by an older version of this program (schema {version}, now {len(MIGRATIONS)})"
        if not os.access(folder, os.W_OK):
            message = f"--run {folder}: {old}; copy it to a folder that can be written to, and read it there"
            raise UsageError(message)
        busy = f"{old}, and another process is at work on it; wait for it"
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
    # In one transaction, so that a reader finds what was there or the newest form, and nothing between.
    with transaction(connection):
        for script in MIGRATIONS[_version(connection, folder) :]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection, folder: Path) -> int:
    """How many migrations were applied.

    Raises:
        UsageError: more than this program knows.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        message = (
            f"--run {folder}: made by a newer version of this program "
            f"(schema {version}, known {len(MIGRATIONS)}); update, or name another folder"
        )
        raise UsageError(message)
    return version


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what the block does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def explain(error: sqlite3.Error, folder: Path, *, read_only: bool) -> UserFacingError:
    """The error for the user, of what SQLite says of the disk or the file; a reader has nothing to go on from."""
    text = str(error)
    if not isinstance(error, sqlite3.OperationalError):
        return UsageError(f"--run {folder}: {DATABASE} cannot be read ({text}); it was left as it is")
    if read_only:
        return RunError(
            f"--run {folder}: {DATABASE} cannot be read where it lies ({text}); copy the folder to a disk with room "
            "that you may write to, and read it there"
        )
    if "full" in text:
        return RunError(f"--run {folder}: the disk is full; make room: {COMMITTED_STANDS}")
    if "disk I/O" in text or "too large" in text:
        return RunError(
            f"--run {folder}: {DATABASE} cannot be written to ({text}: a failing disk, or a limit on the size of "
            f"files); mend that: {COMMITTED_STANDS}"
        )
    return RunError(f"--run {folder}: {DATABASE}: {text}; {COMMITTED_STANDS}")


def lock_run(folder: Path) -> int:
    """Takes the run's lock; closing the descriptor that is returned lets it go, as does the end of the process.

    Raises:
        UsageError: another process holds it, or there are no locks.
    """
    busy = "another process is at work on this run; wait for it, or name another folder"
    return take_lock(folder / LOCK, f"--run {folder}", busy)
