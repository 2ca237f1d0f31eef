"""`selfinstruct filter` on files: rows stream through the decider and come out where they belong.

Survivors keep the record they came in, with fields this program does not know; rejects get the rule, what it saw,
and for near copies the nearest neighbour and its score. Only the index and one batch are in memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from selfinstruct_local.files import replace_atomically
from selfinstruct_local.filter.decide import NOT_NOVEL, Decider
from selfinstruct_local.taskfiles import RecordWriter, Row, read_rows
from selfinstruct_local.tasks import Verdict

BATCH = 8192


@dataclass(slots=True)
class FilterCounts:
    """What a filter pass did.

    Attributes:
        read: records read.
        kept: records kept.
        rejected: count by rule.
        skipped: what was wrong with each record that could not be read.
    """

    read: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


def filter_file(
    source: Path,
    out: Path,
    rejects: Path | None,
    decider: Decider,
    *,
    skip_bad_lines: bool = False,
) -> FilterCounts:
    """Filters a file of tasks in order; the outputs are whole or absent.

    Args:
        source: JSONL or a JSON array.
        out: survivors as JSONL, or as a JSON array when the name ends in `.json`.
        rejects: where to write what was rejected and why, as JSONL; None writes it nowhere.
        decider: with an empty index; positions are those of kept records.
        skip_bad_lines: count and describe records that cannot be read instead of stopping at the first.

    Raises:
        WrongUseError: the source cannot be read.
    """
    counts = FilterCounts()
    rows = read_rows(source, skipped=counts.skipped if skip_bad_lines else None)
    neighbors: list[int] = []  # row number of each index position
    with ExitStack() as stack:
        kept = RecordWriter(stack.enter_context(replace_atomically(out)), as_array=out.suffix == ".json")
        thrown = RecordWriter(stack.enter_context(replace_atomically(rejects)), as_array=False) if rejects else None
        for batch in _batches(rows):
            verdicts = decider.decide([row.task for row in batch])
            counts.read += len(batch)
            for row, verdict in zip(batch, verdicts, strict=True):
                if verdict.keep:
                    neighbors.append(row.number)
                    counts.kept += 1
                    kept.write(row.record)
                    continue
                counts.rejected[verdict.rule] += 1
                if thrown:
                    thrown.write(_reject_record(row, verdict, neighbors))
        kept.close()
        if thrown:
            thrown.close()
    return counts


def _batches(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _reject_record(row: Row, verdict: Verdict, neighbors: Sequence[int]) -> dict[str, Any]:
    reason: dict[str, Any] = {"rule": verdict.rule, "detail": verdict.detail, "row": row.number}
    if verdict.rule == NOT_NOVEL and verdict.neighbor is not None:
        reason |= {"neighbor_row": neighbors[verdict.neighbor], "score": verdict.score}
    return {**row.record, "rejected": reason}
