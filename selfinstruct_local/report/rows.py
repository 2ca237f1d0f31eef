"""The rows of the page's table: kept tasks with their lineage, and rejected tasks with rule and detail.

A large source is sampled with a fixed seed: kept and rejected tasks each get half of the rows, and what the other group
leaves.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfinstruct_local.errors import shown
from selfinstruct_local.report.sources import Decided, ReportSource

MAX_ROWS = 5000
MAX_CHARACTERS = 2000
_SEED = 20221220


@dataclass(frozen=True, slots=True)
class RowSample:
    """The table rows of a source.

    Attributes:
        kept: number of kept tasks among them.
        rejected: number of rejected tasks among them.
        whole: whether all tasks are included.
        rows: the rows, in the order of the source.
    """

    kept: int
    rejected: int
    whole: bool
    rows: list[dict[str, Any]]


def sample_rows(source: ReportSource) -> RowSample:
    """Return at most `MAX_ROWS` rows of a source."""
    half = MAX_ROWS // 2
    kept = min(len(source.kept), max(half, MAX_ROWS - len(source.rejected)))
    rejected = min(len(source.rejected), MAX_ROWS - kept)
    whole = kept == len(source.kept) and rejected == len(source.rejected)
    rows = [_row(each) for each in (*_choose(source.kept, kept), *_choose(source.rejected, rejected))]
    return RowSample(kept, rejected, whole, rows)


def _choose(decided: Sequence[Decided], count: int) -> list[Decided]:
    chosen = sorted(random.Random(_SEED).sample(range(len(decided)), count))  # noqa: S311 - a sample, no secret
    return [decided[position] for position in chosen]


def _row(decided: Decided) -> dict[str, Any]:
    """Return a row with short names, because there are thousands of rows; fields without a value are left out."""
    task = decided.task
    row: dict[str, Any] = {
        "id": task.id,
        "instruction": task.instruction,
        "cases": [[_cut(each.input), _cut(each.output)] for each in task.instances],
        "classification": task.is_classification,
        "rule": decided.rule,
        "detail": decided.detail,
        "neighbor": decided.neighbor,
        "score": decided.score,
    }
    if task.lineage:
        row |= {"profile": task.lineage.profile, "job": task.lineage.job, "shown": list(task.lineage.demonstrations)}
    row["instruction"] = _cut(task.instruction)
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} [truncated: {len(text)} characters]"


def harmless(value: Any) -> Any:
    """Return a JSON value in whose texts control characters and bidirectional controls are replaced by escapes."""
    if isinstance(value, str):
        return shown(value.replace("\r\n", "\n"))
    if isinstance(value, Mapping):
        return {harmless(name): harmless(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(each) for each in value]
    return value
