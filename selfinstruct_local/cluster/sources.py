"""The sources of a filter pass: task files and runs, divided into parts that workers read independently.

Every row has a key, a number that combines its source and its position; keys ascend in the order of the pass.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from selfinstruct_local.io.reader import Part, alpaca_records, begins_array, read_rows, reading
from selfinstruct_local.io.writer import PARQUET, import_parquet
from selfinstruct_local.runs.rejudge import is_decided_here
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.task import Task, Verdict

# A part is read, tokenised and written by one worker at a time, which takes a few seconds.
PART_BYTES = 8 << 20
PART_ROWS = 1 << 16  # of a Parquet file
# A key is the number of the source above this many bits for the row's number.
NUMBER_BITS = 40


class InputFile(NamedTuple):
    """A task file or a run.

    Attributes:
        path: the file, or the run's folder; absolute, because workers may have another working directory.
        name: the path as the user gave it.
        run: whether it is a run, all of whose candidates are decided again.
        known: whether its tasks (of a run, its seeds) are in the pool without a decision and are not written.
    """

    path: str
    name: str
    run: bool = False
    known: bool = False

    @classmethod
    def of(cls, path: Path, *, run: bool = False, known: bool = False) -> Self:
        """Return the source at a path."""
        return cls(str(path.absolute()), str(path), run, known)


class SourcePart(NamedTuple):
    """A part of a source.

    Attributes:
        source: the source's number, in the order of the pass.
        part: its range; None for the whole source.
    """

    source: int
    part: Part | None

    @property
    def first_key(self) -> int:
        """Return a key at or below those of its rows, and above those of all earlier parts."""
        return row_key(self.source, self.part.first if self.part else 0)


class Item(NamedTuple):
    """A row of a source.

    Attributes:
        number: line or position in a file, or position among the candidates of a run, from 1.
        task: the task to decide on.
        records: the records to write if it is kept: one, or for a run one per instance.
        settled: an earlier verdict that is not decided again; None otherwise.
        neighbor: for a settled near copy, the id of its neighbour.
    """

    number: int
    task: Task
    records: Sequence[dict[str, Any]]
    settled: Verdict | None = None
    neighbor: str | None = None


def row_key(source: int, number: int) -> int:
    """Return the key of a row; there is room for 2**40 rows in each of 2**23 sources."""
    return source << NUMBER_BITS | number


def divide(source: InputFile) -> list[Part | None]:
    """Return the parts of a source; None means the whole of a source that cannot be divided.

    Raises:
        UsageError: the source cannot be read, or it is Parquet and pyarrow is missing.
    """
    path = Path(source.path)
    with reading(path):
        if source.run or path.stat().st_size == 0:
            return [None]
        if path.suffix == PARQUET:
            return list(_divide_parquet(path))
        with path.open("rb") as stream:
            return [None] if begins_array(stream) else list(_divide_lines(stream))


def _divide_lines(stream: BinaryIO) -> Iterator[Part]:
    """Yield parts of a few megabytes of lines; counts line feeds, at gigabytes per second."""
    start, first = 0, 1
    while chunk := stream.read(PART_BYTES):
        chunk += stream.readline()
        yield Part(start, start + len(chunk), first)
        start, first = start + len(chunk), first + chunk.count(b"\n")


def _divide_parquet(path: Path) -> Iterator[Part | None]:
    from pyarrow import ArrowException

    try:
        with import_parquet().ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except (ArrowException, OSError):
        yield None  # the reader reports what is wrong
        return
    if not sizes:
        yield None
    start, rows, first = 0, 0, 1
    for group, size in enumerate(sizes, start=1):
        rows += size
        if rows >= PART_ROWS or group == len(sizes):
            yield Part(start, group, first)
            start, rows, first = group, 0, first + rows


def read_items(
    source: InputFile, part: Part | None, skipped: list[str] | None, unread: Counter[str] | None = None
) -> Iterator[Item]:
    """Yield the rows of a part, in order; `skipped`, `unread` and errors are as in `io.reader.read_rows`."""
    path = Path(source.path)
    if not source.run:
        for row in read_rows(path, skipped=skipped, part=part, unread=unread):
            yield Item(row.number, row.task, [row.record])
        return
    with RunStore(path, read_only=True) as run:
        tasks = run.seeds() if source.known else [each.task for each in run.inherited()]
        numbers = count(1)
        for task in tasks:
            yield _item_of_run(next(numbers), task)
        if source.known:
            return
        for job in run.ledger():
            for candidate in job.decided.candidates:
                item = _item_of_run(next(numbers), candidate.task)
                if not is_decided_here(candidate):
                    item = item._replace(settled=candidate.verdict, neighbor=candidate.neighbor_id)
                yield item


def _item_of_run(number: int, task: Task) -> Item:
    return Item(number, task, list(alpaca_records([task])))
