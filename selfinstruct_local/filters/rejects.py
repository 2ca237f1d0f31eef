"""Rejects as records: the record of a task with a field `rejected`, which says why it was turned away.

Every filter writes them so, and the report reads them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from selfinstruct_local.task import Task, Verdict

FIELD = "rejected"


class Place(NamedTuple):
    """Where a task stands; what is empty is not said.

    Attributes:
        file: its file or run.
        row: its line or position there, from 1.
        id: its id in a run.
    """

    file: str = ""
    row: int = 0
    id: str = ""

    def __str__(self) -> str:
        return ":".join(str(each) for each in (self.file, self.row, self.id) if each)


class Reason(NamedTuple):
    """Why a task was turned away.

    Attributes:
        rule: what turned it away.
        detail: what the rule saw.
        neighbor: the task it is like.
        score: their ROUGE-L F, in [0, 1].
    """

    rule: str
    detail: str
    neighbor: Place
    score: float | None


def task_record(task: Task) -> dict[str, Any]:
    """The record of a task that was read from none."""
    return {"instruction": task.instruction, "input": task.input, "output": task.output}


def reject_record(
    record: Mapping[str, Any], verdict: Verdict, own: Place, neighbor: Place | None = None
) -> dict[str, Any]:
    """A record with what was decided of it; `neighbor` is the task that it is like."""
    reason: dict[str, Any] = {"id": own.id} if own.id else {}
    reason |= {"rule": verdict.rule, "detail": verdict.detail}
    reason |= {name: each for name, each in (("file", own.file), ("row", own.row)) if each}
    if neighbor is not None:
        names = ("neighbor_file", "neighbor_row", "neighbor")
        reason |= {name: each for name, each in zip(names, neighbor, strict=True) if each}
    if verdict.score is not None:
        reason["score"] = verdict.score
    return {**record, FIELD: reason}


def read_reason(record: Mapping[str, Any]) -> Reason | None:
    """What `reject_record` wrote; None where the field is missing or somebody else's."""
    reason = record.get(FIELD)
    if not isinstance(reason, dict) or not isinstance(reason.get("rule"), str):
        return None
    row, score = reason.get("neighbor_row"), reason.get("score")
    # A file that went through Parquet has null where a field was not there.
    file, name, detail = (str(reason.get(key) or "") for key in ("neighbor_file", "neighbor", "detail"))
    near = Place(file, row if isinstance(row, int) else 0, name)
    known = float(score) if isinstance(score, int | float) else None
    return Reason(reason["rule"], detail, near, known)
