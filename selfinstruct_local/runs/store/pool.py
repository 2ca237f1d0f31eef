"""The accepted tasks of a run as a sequence that stays in the database.

A prompt has one or two few-shot examples from a pool of up to a million tasks, so tasks are read on access. The memory
holds only their keys, twelve bytes per task.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from selfinstruct_local.runs.store.records import candidate_id, candidate_to_task, inherited_id, task_from_json
from selfinstruct_local.task import Task


class StoredPool(Sequence[Task]):
    """The pool: inherited tasks first, then accepted tasks in the order in which they were accepted."""

    def __init__(
        self, database: sqlite3.Connection, profile: str, inherited: int, keys: Iterable[tuple[int, int]]
    ) -> None:
        """Create the pool on the open database of a run.

        Args:
            database: the database, only read.
            profile: generation profile of the run, for the lineage of its tasks.
            inherited: number of inherited tasks.
            keys: job and position of each accepted candidate, in order.
        """
        self._database = database
        self._profile = profile
        self._inherited = inherited
        self._jobs = array("q")
        self._positions = array("i")
        for job, position in keys:
            self.append(job, position)

    def __len__(self) -> int:
        return self._inherited + len(self._jobs)

    def append(self, job: int, position: int) -> None:
        """Add a committed candidate to the pool."""
        self._jobs.append(job)
        self._positions.append(position)

    def id(self, index: int) -> str:
        """Return the id of the task at `index` without reading the task."""
        if index < self._inherited:
            return inherited_id(index)
        return candidate_id(self._jobs[index - self._inherited], self._positions[index - self._inherited])

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        chosen = range(len(self))[index]
        return self._read(chosen) if isinstance(chosen, int) else [self._read(each) for each in chosen]

    def _read(self, index: int) -> Task:
        if index < self._inherited:
            row = self._database.execute("SELECT task FROM inherited WHERE position = ?", (index,)).fetchone()
            return task_from_json(row[0])
        own = index - self._inherited
        row = self._database.execute(
            "SELECT job, position, instruction, instances, is_classification, measures, demonstrations "
            "FROM candidates JOIN jobs USING (job) WHERE job = ? AND position = ?",
            (self._jobs[own], self._positions[own]),
        ).fetchone()
        return candidate_to_task(row, self._profile)
