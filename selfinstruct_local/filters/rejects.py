"""Reject records: the record of a task with a field `rejected` that says why it was rejected.

Every filter writes this form, and the report reads it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from selfinstruct_local.task import Task, Verdict

FIELD = "rejected"


class Place(NamedTuple):
    """The origin of a task; empty fields are left out of its text.

    Attributes:
        file: the file or run.
        row: line or position in the file, from 1.
        id: id in a run.
    """

    file: str = ""
    row: int = 0
    id: str = ""

    def __str__(self) -> str:
        return ":".join(str(each) for each in (self.file, self.row, self.id) if each)


class Reason(NamedTuple):
    """Why a task was rejected.

    Attributes:
        rule: name of the rule.
        detail: what the rule found.
        neighbor: the task that it is a near copy of.
        score: their ROUGE-L F, in [0, 1].
    """

    rule: str
    detail: str
    neighbor: Place
    score: float | None


def task_record(task: Task) -> dict[str, Any]:
    """Return a record for a task that was not read from one."""
    return {"instruction": task.instruction, "input": task.input, "output": task.output}


def reject_record(
    record: Mapping[str, Any], verdict: Verdict, own: Place, neighbor: Place | None = None
) -> dict[str, Any]:
    """Return a record with its verdict; `neighbor` is the task that it is a near copy of."""
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
    """Return the reason that `reject_record` wrote, or None if the field is missing or has another form."""
    reason = record.get(FIELD)
    if not isinstance(reason, dict) or not isinstance(reason.get("rule"), str):
        return None
    row, score = reason.get("neighbor_row"), reason.get("score")
    # A file that was converted from Parquet has null for missing fields.
    file, name, detail = (str(reason.get(key) or "") for key in ("neighbor_file", "neighbor", "detail"))
    near = Place(file, row if isinstance(row, int) else 0, name)
    known = float(score) if isinstance(score, int | float) else None
    return Reason(reason["rule"], detail, near, known)
