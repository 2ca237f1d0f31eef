"""The run: one SQLite database in the run's folder, and nothing else that counts.

It holds the settings and fingerprints, the seeds as they were, each raw completion as it arrived, each
candidate with its verdict, and so each accepted task. A job is decided in one transaction. Files for people
are exports and can be made again from here.

WAL with synchronous=FULL: a committed transaction survives a power cut. A lock file keeps two processes off
one run.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from selfinstruct_local.engine.base import Completion, FinishReason, RequestKey
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.files import check_writable_folder
from selfinstruct_local.tasks import Instance, Lineage, Task, Verdict

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
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task a job gave, what was decided of it, and the id of its nearest neighbour."""

    task: Task
    verdict: Verdict
    neighbor_id: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all sessions of a run.

    Attributes:
        jobs: decided jobs.
        accepted: accepted tasks.
        rejected: number of candidates by the rule that rejected them, most first.
        completions: stored completions.
        completion_tokens: tokens in them.
    """

    jobs: int
    accepted: int
    rejected: dict[str, int]
    completions: int
    completion_tokens: int


class RunStore:
    """An open run. Use as a context manager; only one process at a time can hold it for writing."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Opens the run in `folder`, and makes it if there is none (unless `read_only`).

        Raises:
            WrongUseError: no run where one is wanted, the folder cannot be written to, another process
                holds the run, or the database is corrupt or newer than this program.
        """
        self.folder = folder
        self.path = folder / DATABASE
        self._lock: int | None = None
        if read_only:
            if not self.path.is_file():
                message = f"--run {folder}: no run there ({DATABASE} is missing)"
                raise WrongUseError(message)
        else:
            check_writable_folder(folder, "--run")
            self._lock = _lock_run(folder)
        uri = f"{self.path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._prepare(read_only=read_only)
        except sqlite3.DatabaseError as error:
            self._unlock()
            message = f"--run {folder}: {DATABASE} cannot be read ({error}); it was left as it is"
            raise WrongUseError(message) from error
        except WrongUseError:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database and lets the run go."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self, *, read_only: bool) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            message = (
                f"--run {self.folder}: made by a newer version of this program "
                f"(schema {version}, known {len(MIGRATIONS)}); update, or name another folder"
            )
            raise WrongUseError(message)
        if read_only:
            return
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            with self._transaction():
                for statement in script.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Creation and resume

    def facts(self) -> dict[str, Any]:
        """Deciding settings and fingerprints of the run; empty when it was just made."""
        rows = self._db.execute("SELECT name, value FROM facts")
        return {name: orjson.loads(value) for name, value in rows}

    def create(self, facts: dict[str, Any], seeds: Sequence[Task]) -> None:
        """Fixes what decides the run, in one transaction."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO facts VALUES (?, ?)",
                [(name, orjson.dumps(value).decode()) for name, value in facts.items()],
            )
            self._db.executemany(
                "INSERT INTO seeds VALUES (?, ?)",
                [(position, _task_to_json(task)) for position, task in enumerate(seeds)],
            )

    def seeds(self) -> list[Task]:
        """The seeds as they were when the run was made."""
        rows = self._db.execute("SELECT task FROM seeds ORDER BY position")
        return [_task_from_json(text) for (text,) in rows]

    def begin_session(self, settings: dict[str, Any], engine: dict[str, str]) -> int:
        """Notes a start and returns its number."""
        cursor = self._db.execute(
            "INSERT INTO sessions (started_at, settings, engine) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?)",
            (orjson.dumps(settings).decode(), orjson.dumps(engine).decode()),
        )
        return int(cursor.lastrowid or 0)

    def end_session(self, session: int, seconds: float, outcome: str) -> None:
        """Notes how a start ended."""
        self._db.execute("UPDATE sessions SET seconds = ?, outcome = ? WHERE id = ?", (seconds, outcome, session))

    # The journal

    def add_completions(self, session: int, completions: Iterable[Completion]) -> None:
        """Stores completions as they arrived, in one transaction."""
        rows = [
            (*each.key, session, each.text, each.finish_reason, each.prompt_tokens, each.completion_tokens)
            for each in completions
        ]
        with self._transaction():
            self._db.executemany("INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def undecided_completions(self) -> dict[RequestKey, Completion]:
        """The stored completions of jobs that were not decided yet."""
        rows = self._db.execute(
            "SELECT job, stage, branch, text, finish_reason, prompt_tokens, completion_tokens FROM completions "
            "WHERE job >= (SELECT count(*) FROM jobs)"
        )
        found = {}
        for job, stage, branch, text, reason, prompt_tokens, tokens in rows:
            key = RequestKey(job, stage, branch)
            found[key] = Completion(key, text, FinishReason(reason), prompt_tokens, tokens)
        return found

    def commit_job(self, job: int, demonstrations: Sequence[str], candidates: Sequence[Candidate]) -> None:
        """Decides a job: all its candidates with their verdicts, in one transaction."""
        accepted = sum(candidate.verdict.keep for candidate in candidates)
        rows = [
            (
                job,
                position,
                each.task.instruction,
                orjson.dumps([[one.input, one.output] for one in each.task.instances]).decode(),
                each.task.is_classification,
                each.verdict.rule,
                each.verdict.detail,
                each.neighbor_id,
                each.verdict.score,
            )
            for position, each in enumerate(candidates)
        ]
        with self._transaction():
            demos = orjson.dumps(list(demonstrations)).decode()
            self._db.execute("INSERT INTO jobs VALUES (?, ?, ?)", (job, demos, accepted))
            self._db.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    # Reading

    def accepted_per_job(self) -> list[int]:
        """Number of accepted tasks of each decided job, in job order."""
        return [count for (count,) in self._db.execute("SELECT accepted FROM jobs ORDER BY job")]

    def accepted(self) -> Iterator[Task]:
        """The accepted tasks, in the order in which they joined the pool."""
        profile = str(self.facts().get("profile", ""))
        rows = self._db.execute(
            "SELECT job, position, instruction, instances, is_classification, demonstrations "
            "FROM candidates JOIN jobs USING (job) WHERE rule = '' ORDER BY job, position"
        )
        for job, position, instruction, instances, is_classification, demonstrations in rows:
            yield Task(
                instruction,
                tuple(Instance(*pair) for pair in orjson.loads(instances)),
                None if is_classification is None else bool(is_classification),
                candidate_id(job, position),
                Lineage(profile, job, tuple(orjson.loads(demonstrations))),
            )

    def totals(self) -> Totals:
        """Counts over all sessions."""
        jobs, accepted = self._db.execute("SELECT count(*), coalesce(sum(accepted), 0) FROM jobs").fetchone()
        completions, tokens = self._db.execute(
            "SELECT count(*), coalesce(sum(completion_tokens), 0) FROM completions"
        ).fetchone()
        rejected = self._db.execute(
            "SELECT rule, count(*) FROM candidates WHERE rule <> '' GROUP BY rule ORDER BY 2 DESC, 1"
        )
        return Totals(jobs, accepted, dict(rejected.fetchall()), completions, tokens)


def candidate_id(job: int, position: int) -> str:
    """The id of the task that stands at `position` of what job `job` gave."""
    return f"gen-{job}-{position}"


def _lock_run(folder: Path) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = f"--run {folder}: another process is at work on this run; wait for it, or name another folder"
        raise WrongUseError(message) from None
    return descriptor


def _task_to_json(task: Task) -> str:
    return orjson.dumps(
        {
            "id": task.id,
            "instruction": task.instruction,
            "instances": [[each.input, each.output] for each in task.instances],
            "is_classification": task.is_classification,
        }
    ).decode()


def _task_from_json(text: str) -> Task:
    value = orjson.loads(text)
    instances = tuple(Instance(*pair) for pair in value["instances"])
    return Task(value["instruction"], instances, value["is_classification"], value["id"])
