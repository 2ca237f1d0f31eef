"""Finished runs of `selfinstruct generate`, as read by the benchmarks. Nothing is generated here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.report.sources import source_names
from selfinstruct_local.runs.store import RunStore, Totals
from selfinstruct_local.task import Task


class JobYield(NamedTuple):
    """Accepted tasks and generated tokens of one decided job."""

    accepted: int
    tokens: int


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The data of a run.

    Attributes:
        name: last part of its path, or the whole path if two runs share that part.
        facts: settings and fingerprints that determine the run.
        earlier: instructions that new ones were compared with from the start: seeds, then inherited tasks.
        accepted: generated tasks with an instance, in the order in which they joined the pool, as in an export.
        jobs: decided jobs in order.
        totals: counts over all sessions.
    """

    name: str
    facts: dict[str, Any]
    earlier: list[str]
    accepted: list[Task]
    jobs: list[JobYield]
    totals: Totals

    @property
    def lang(self) -> str:
        """Language of prompts, seeds and rules."""
        return str(self.facts.get("lang", "en"))

    @property
    def tokens(self) -> int:
        """Generated tokens of the decided jobs."""
        return sum(job.tokens for job in self.jobs)


def read_runs(paths: Sequence[Path], *, may_be_running: bool) -> list[FinishedRun]:
    """Return the runs in the given folders.

    Raises:
        UsageError: a folder holds no run or is named twice, or a run is in progress and `may_be_running` is false.
    """
    return [
        _read_run(path, name, may_be_running=may_be_running)
        for path, name in zip(paths, source_names(paths), strict=True)
    ]


def _read_run(path: Path, name: str, *, may_be_running: bool) -> FinishedRun:
    with RunStore(path, read_only=True) as store:
        if not may_be_running and store.at_work():
            message = f"{path}: 'selfinstruct generate' is running; wait until it ends, or omit --write"
            raise UsageError(message)
        accepted: list[Task] = []
        jobs: list[JobYield] = []
        for decided, counts in store.ledger():
            found = [each.task for each in decided.candidates if each.verdict.keep and each.task.instances]
            accepted += found
            jobs.append(JobYield(len(found), counts[2]))
        earlier = [*store.seeds(), *(each.task for each in store.inherited())]
        return FinishedRun(name, store.facts(), [task.instruction for task in earlier], accepted, jobs, store.totals())


def percent(count: float, total: float) -> str:
    """Return a share as `12 %`, or `-` if the total is 0."""
    return f"{100 * count / total:.0f} %" if total else "-"


def with_input(tasks: Sequence[Task]) -> int:
    """Return the number of tasks that have an input."""
    return sum(any(case.input for case in task.instances) for task in tasks)
