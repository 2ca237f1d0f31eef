"""`RunStore`: reads and writes the settings, completions and verdicts of a run."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from selfinstruct_local.engines.base import Completion, FinishReason, RequestKey
from selfinstruct_local.engines.suspects import Suspicion
from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_writable_folder
from selfinstruct_local.io.locks import is_locked
from selfinstruct_local.runs.store.pool import StoredPool
from selfinstruct_local.runs.store.records import (
    DecidedJob,
    InheritedTask,
    LedgerJob,
    PoolTask,
    Session,
    Totals,
    candidate_from_row,
    candidate_to_task,
    inherited_id,
    instances_to_json,
    measures_to_json,
    task_from_json,
    task_to_json,
)
from selfinstruct_local.runs.store.schema import LOCK, explain, lock_run, open_database, transaction
from selfinstruct_local.task import Task


class RunStore:
    """An open run. Use it as a context manager; only one process at a time can open a run for writing.

    SQLite errors about a full disk or a corrupt file leave the block as user-facing errors.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the run in `folder`; create it if there is none, unless `read_only`.

        Raises:
            UsageError: `read_only` and there is no run, the folder cannot be written to, another process has opened the
                run for writing, the database is corrupt or newer than this program, or there are no file locks.
            RunError: the disk is full or has an error.
        """
        self.folder = folder
        self._read_only = read_only
        self._lock: int | None = None
        if not read_only:
            check_writable_folder(folder, "--run")
            self._lock = lock_run(folder)
        try:
            self._db = open_database(folder, read_only=read_only)
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()
        # A violated constraint or a wrong call is a bug of this program and keeps its traceback.
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
        ):
            raise explain(error, self.folder, read_only=self._read_only) from error

    def close(self) -> None:
        """Close the database and release the lock."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Creation and resume

    def check_unused(self, flag: str = "--run") -> None:
        """Raise UsageError if the run was started or has inherited tasks.

        Raises:
            UsageError: the folder has a run; the message names `flag`.
        """
        if self.facts() or self._count_inherited():
            message = f"{flag} {self.folder}: is already a run; name a new folder"
            raise UsageError(message)

    def facts(self) -> dict[str, Any]:
        """Return the deciding settings and fingerprints of the run; empty if it was not started."""
        rows = self._db.execute("SELECT name, value FROM facts")
        return {name: orjson.loads(value) for name, value in rows}

    def create(self, facts: Mapping[str, Any], seeds: Sequence[Task]) -> None:
        """Store the deciding settings, fingerprints and seeds of the run, in one transaction."""
        with transaction(self._db):
            self._db.executemany(
                "INSERT INTO facts VALUES (?, ?)",
                [(name, orjson.dumps(value).decode()) for name, value in facts.items()],
            )
            self._db.executemany(
                "INSERT INTO seeds VALUES (?, ?)",
                [(position, task_to_json(task)) for position, task in enumerate(seeds)],
            )

    def inherit(self, tasks: Iterable[InheritedTask]) -> int:
        """Add inherited tasks to a run without jobs, in one transaction, and return their number."""
        with transaction(self._db):
            rows = (
                (
                    position,
                    task_to_json(each.task._replace(id=inherited_id(position))),
                    orjson.dumps(each.origin).decode(),
                )
                for position, each in enumerate(tasks)
            )
            self._db.executemany("INSERT INTO inherited VALUES (?, ?, ?)", rows)
        return self._count_inherited()

    def inherited(self) -> Iterator[InheritedTask]:
        """Yield the inherited tasks in order."""
        for task, origin in self._db.execute("SELECT task, origin FROM inherited ORDER BY position"):
            yield InheritedTask(task_from_json(task), orjson.loads(origin))

    def seeds(self) -> list[Task]:
        """Return the seeds as they were when the run was created."""
        rows = self._db.execute("SELECT task FROM seeds ORDER BY position")
        return [task_from_json(text) for (text,) in rows]

    def begin_session(self, settings: Mapping[str, Any], engine: Mapping[str, str]) -> int:
        """Store a new session and return its number."""
        cursor = self._db.execute(
            "INSERT INTO sessions (started_at, settings, engine) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?)",
            (orjson.dumps(settings).decode(), orjson.dumps(engine).decode()),
        )
        return int(cursor.lastrowid or 0)

    def end_session(self, session: int, seconds: float, outcome: str, measured: Mapping[str, Any]) -> None:
        """Store how a session ended, and its measured values."""
        self._db.execute(
            "UPDATE sessions SET seconds = ?, outcome = ?, measured = ? WHERE id = ?",
            (seconds, outcome, orjson.dumps(measured).decode(), session),
        )

    def sessions(self) -> list[Session]:
        """Return all sessions, oldest first."""
        rows = self._db.execute(
            "SELECT id, started_at, settings, engine, seconds, outcome, measured FROM sessions ORDER BY id"
        )
        return [
            Session(number, at, orjson.loads(settings), orjson.loads(engine), seconds, outcome, _maybe_json(measured))
            for number, at, settings, engine, seconds, outcome, measured in rows
        ]

    def at_work(self) -> bool:
        """Return whether a process has opened the run for writing."""
        return is_locked(self.folder / LOCK)

    # The journal

    def add_completions(self, session: int, completions: Iterable[Completion]) -> None:
        """Store completions as they arrived, in one transaction."""
        rows = [
            (
                *each.key,
                session,
                each.text,
                each.finish_reason,
                each.prompt_tokens,
                each.completion_tokens,
                each.cached_tokens,
                each.confidence,
                each.given_up,
            )
            for each in completions
        ]
        with transaction(self._db):
            self._db.executemany("INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def undecided_completions(self) -> dict[RequestKey, Completion]:
        """Return the stored completions of undecided jobs."""
        rows = self._db.execute(
            "SELECT job, stage, branch, text, finish_reason, prompt_tokens, completion_tokens, cached_tokens, "
            "confidence, given_up FROM completions WHERE job >= (SELECT count(*) FROM jobs)"
        )
        found = {}
        for job, stage, branch, text, reason, *told in rows:
            key = RequestKey(job, stage, branch)
            found[key] = Completion(key, text, FinishReason(reason), *told)
        return found

    def suspicions(self) -> dict[RequestKey, Suspicion]:
        """Return the stored suspicions by request, as in `DeathRecord.suspicions`."""
        rows = self._db.execute(
            "SELECT job, stage, branch, together, alone FROM deaths WHERE NOT EXISTS "
            "(SELECT * FROM completions AS each "
            "WHERE (each.job, each.stage, each.branch) = (deaths.job, deaths.stage, deaths.branch))"
        )
        return {RequestKey(*key): Suspicion(together, alone) for *key, together, alone in rows}

    def note_death(self, suspicions: Mapping[RequestKey, Suspicion], reason: str) -> None:
        """Store the suspicions after an engine death, as in `DeathRecord.note_death`, in one transaction."""
        with transaction(self._db):
            self._db.executemany(
                "INSERT OR REPLACE INTO deaths VALUES (?, ?, ?, ?, ?, ?)",
                [(*key, *suspicion, reason) for key, suspicion in suspicions.items()],
            )

    def commit_jobs(self, decided: Iterable[DecidedJob]) -> None:
        """Store consecutive decided jobs and all their candidates with verdicts, in one transaction."""
        with transaction(self._db):
            for job in decided:
                self._db.execute(
                    "INSERT INTO jobs SELECT ?, ?, ?, count(*), coalesce(sum(prompt_tokens), 0), "
                    "coalesce(sum(completion_tokens), 0), coalesce(sum(cached_tokens), 0) "
                    "FROM completions WHERE job = ?",
                    (job.number, _ids(job.demonstrations), _accepted(job), job.number),
                )
                self._add_candidates(job)

    def copy_jobs(self, jobs: Iterable[LedgerJob]) -> None:
        """Store decided jobs of another run without their completions, in one transaction."""
        with transaction(self._db):
            for decided, counts in jobs:
                row = (decided.number, _ids(decided.demonstrations), _accepted(decided), *counts)
                self._db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                self._add_candidates(decided)

    def _add_candidates(self, job: DecidedJob) -> None:
        rows = [
            (
                job.number,
                position,
                each.task.instruction,
                instances_to_json(each.task.instances),
                each.task.is_classification,
                each.verdict.rule,
                each.verdict.detail,
                each.neighbor_id,
                each.verdict.score,
                measures_to_json(each.task.measures),
            )
            for position, each in enumerate(job.candidates)
        ]
        self._db.executemany("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    # Reading

    def _count_inherited(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM inherited").fetchone()[0])

    def _profile(self) -> str:
        return str(self.facts().get("profile", ""))

    def pool(self) -> StoredPool:
        """Return the current pool, whose tasks are read from the database on access."""
        keys = self._db.execute("SELECT job, position FROM candidates WHERE rule = '' ORDER BY job, position")
        return StoredPool(self._db, self._profile(), self._count_inherited(), keys)

    def pool_sizes(self) -> list[int]:
        """Return the size of the pool after 0, 1, 2, ... decided jobs."""
        counts = self._db.execute("SELECT accepted FROM jobs ORDER BY job")
        return list(accumulate((count for (count,) in counts), initial=self._count_inherited()))

    def pool_instructions(self) -> Iterator[str]:
        """Yield the instructions of the pool in order."""
        for (task,) in self._db.execute("SELECT task FROM inherited ORDER BY position"):
            yield task_from_json(task).instruction
        rows = self._db.execute("SELECT instruction FROM candidates WHERE rule = '' ORDER BY job, position")
        for (instruction,) in rows:
            yield instruction

    def accepted(self) -> Iterator[Task]:
        """Yield the tasks of the pool in order: inherited ones, then accepted ones."""
        for each in self.inherited():
            yield each.task
        profile = self._profile()
        rows = self._db.execute(
            "SELECT job, position, instruction, instances, is_classification, measures, demonstrations "
            "FROM candidates JOIN jobs USING (job) WHERE rule = '' ORDER BY job, position"
        )
        for row in rows:
            yield candidate_to_task(row, profile)

    def ledger(self) -> Iterator[LedgerJob]:
        """Yield every decided job with all its candidates, in order. Neighbors are only known by id."""
        rows = self._db.execute(
            "SELECT job, position, instruction, instances, is_classification, rule, detail, neighbor, score, measures "
            "FROM candidates ORDER BY job, position"
        )
        jobs = self._db.execute(
            "SELECT job, demonstrations, completions, prompt_tokens, completion_tokens, cached_tokens "
            "FROM jobs ORDER BY job"
        )
        # Two parallel cursors are twice as fast as a join, which repeats the job in every row.
        row = next(rows, None)
        for number, shown, *counts in jobs:
            candidates = []
            while row is not None and row[0] == number:
                candidates.append(candidate_from_row(*row))
                row = next(rows, None)
            yield LedgerJob(DecidedJob(number, tuple(orjson.loads(shown)), candidates), tuple(counts))

    def totals(self) -> Totals:
        """Return the counts over all sessions, without reading the completions of decided jobs."""
        inherited = self._count_inherited()
        jobs, accepted, *decided = self._db.execute(
            "SELECT count(*), coalesce(sum(accepted), 0), coalesce(sum(completions), 0), "
            "coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0), coalesce(sum(completion_tokens), 0) "
            "FROM jobs"
        ).fetchone()
        waiting = self._db.execute(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0), "
            "coalesce(sum(completion_tokens), 0) FROM completions WHERE job >= ?",
            (jobs,),
        ).fetchone()
        rejected = self._db.execute(
            "SELECT rule, count(*) FROM candidates WHERE rule <> '' GROUP BY rule ORDER BY 2 DESC, 1"
        )
        sums = (one + other for one, other in zip(decided, waiting, strict=True))
        return Totals(jobs, inherited + accepted, inherited, dict(rejected.fetchall()), *sums)

    def unscored(self) -> list[PoolTask]:
        """Return the accepted tasks without a nearest neighbor, in order."""
        rows = self._db.execute(
            "SELECT job, position, neighbor IS NULL FROM candidates WHERE rule = '' ORDER BY job, position"
        )
        inherited = self._count_inherited()
        return [
            PoolTask(place, job, position)
            for place, (job, position, missing) in enumerate(rows, start=inherited)
            if missing
        ]

    def set_neighbors(self, found: Iterable[tuple[PoolTask, str, float]]) -> None:
        """Store the nearest neighbors of accepted tasks, in one transaction."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE candidates SET neighbor = ?, score = ? WHERE job = ? AND position = ?",
                ((neighbor, score, task.job, task.position) for task, neighbor, score in found),
            )


def _ids(demonstrations: Sequence[str]) -> str:
    return orjson.dumps(list(demonstrations)).decode()


def _accepted(job: DecidedJob) -> int:
    return sum(candidate.verdict.keep for candidate in job.candidates)


def _maybe_json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
