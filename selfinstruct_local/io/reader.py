"""Reading files of tasks: JSONL, a JSON array or Parquet; the formats of Self-Instruct, Alpaca and Dolly.

One reader for all of them. The fields of a record tell its format: `instances` makes it a seed (the published
Self-Instruct seeds look the same), otherwise `instruction`, `input` and `output` are Alpaca's; `records.py` has the
others. Lines end at line feeds alone, so U+2028 and U+0085 inside a text are text.
"""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_name
from selfinstruct_local.io.json_faults import array_faults, exact, exact_array, field_fault, record_fault
from selfinstruct_local.io.writer import PARQUET, import_parquet
from selfinstruct_local.task import Instance, Task

PLAIN_FIELDS = frozenset({"instruction", "input", "output"})
BOM = b"\xef\xbb\xbf"
_TEXT_OR_NULL = frozenset({str, type(None)})
# Where other formats keep the output.
_OUTPUT_LIKE = ("response", "answer", "completion", "target", "solution", "reply", "outputs", "responses", "answers")


class BadRecordError(UsageError):
    """A record that cannot be read; the text names the file and the line (or the array position)."""


class UnreadFieldWarning(UserWarning):
    """A file has records with a field that may be their output and is not read."""


class Part(NamedTuple):
    """A stretch of a file that can be read without the rest.

    Attributes:
        start: its first byte, which begins a line; of Parquet the first row group.
        stop: the byte or row group after its last.
        first: number of its first line or row, counted from 1.
    """

    start: int
    stop: int
    first: int


class Row(NamedTuple):
    """A task with the record it was read from, which may carry fields that this program does not know.

    Attributes:
        number: line in a JSONL file, or position in a JSON array, counted from 1.
        record: the record as it stood in the file.
        task: the same as a `Task`.
    """

    number: int
    record: dict[str, Any]
    task: Task


def task_from_record(record: Any) -> Task:
    """The task that a parsed JSON value describes.

    Raises:
        ValueError: it is not an object, or a field is missing or has the wrong type.
    """
    if not isinstance(record, dict):
        message = f"expected an object with an 'instruction', found {_json_type(record)}"
        raise ValueError(message)  # noqa: TRY004 - a fault of the data, as the others
    if record.keys() <= PLAIN_FIELDS:
        # Most records are three texts: checked here, five times faster than by a model.
        instruction, task_input, output = record.get("instruction"), record.get("input"), record.get("output")
        if type(instruction) is str and type(task_input) in _TEXT_OR_NULL and type(output) in _TEXT_OR_NULL:
            return Task(instruction, (Instance(task_input or "", output or ""),))
    from selfinstruct_local.io.records import checked_task

    return checked_task(record)


def unread_output(record: dict[str, Any]) -> str | None:
    """Returns the field of a record that may be its output and is not read, or None."""
    if record.keys() <= PLAIN_FIELDS or record.get("instances") or record.get("raw_instances"):
        return None
    output, response = record.get("output"), record.get("response")
    if isinstance(output, str) and output.strip():
        return "response" if isinstance(response, str) and response.strip() not in {"", output.strip()} else None
    from selfinstruct_local.io.records import case_fields

    return next((name for name in _OUTPUT_LIKE if record.get(name) and name not in case_fields(record)), None)


def warn_of_unread(path: Path | str, unread: Counter[str]) -> None:
    """Warns of the fields that `unread_output` found in the records of a file.

    Args:
        path: the file.
        unread: number of records by field.
    """
    for name, count in unread.most_common():
        message = f"{path}: the field '{name}' of {count} record(s) is not read; if it is the output, name it 'output'"
        warnings.warn(message, UnreadFieldWarning, stacklevel=2)


def read_rows(
    path: Path,
    *,
    skipped: list[str] | None = None,
    part: Part | None = None,
    unread: Counter[str] | None = None,
) -> Iterator[Row]:
    """Reads a file of tasks one by one, and warns at its end of fields that may be outputs and are not read.

    Args:
        path: JSONL, one JSON array, or Parquet.
        skipped: when given, bad records are described there and passed over instead of raised.
        part: what to read of JSONL or Parquet; None reads it all. A part may hold no record.
        unread: when given, counts those fields by name, and there is no warning.

    Raises:
        UsageError: the file is missing, cannot be read or holds no record.
        BadRecordError: a record is broken and `skipped` was not given.
    """
    found = part is not None
    counts = Counter[str]() if unread is None else unread
    for number, value in read_values(path, skipped, part):
        try:
            task = task_from_record(value)
        except ValueError as error:
            _refuse(f"{place(path, number)}: {error}", skipped)
            continue
        found = True
        if name := unread_output(value):
            counts[name] += 1
        yield Row(number, value, task)
    if unread is None:
        warn_of_unread(path, counts)
    if not found:
        message = f"{path}: holds no task; expected one JSON object a line, or a JSON array of objects"
        raise UsageError(message)


def read_tasks(path: Path) -> list[Task]:
    """All tasks of a file. Raises as `read_rows` does."""
    return [row.task for row in read_rows(path)]


def place(path: Path, number: int) -> str:
    """How a message names a record: by its line, or in an array or table by its position."""
    return f"{path}: record {number}" if path.suffix in {".json", PARQUET} else f"{path}:{number}"


def _refuse(message: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise BadRecordError(message)
    skipped.append(message)


def read_values(path: Path, skipped: list[str] | None = None, part: Part | None = None) -> Iterator[tuple[int, Any]]:
    """The parsed records of a file, whatever they hold, numbered as in `Row`. Takes and raises as `read_rows`."""
    check_name(path)
    with reading(path):
        if not path.exists():
            message = f"{path}: no such file"
            raise UsageError(message)
        if path.is_dir():
            message = f"{path}: is a folder; name a file of tasks (JSONL or a JSON array)"
            raise UsageError(message)
        yield from _read_values(path, skipped, part)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Names the file in what the system says while the block reads it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        message = f"{path}: cannot be read ({why}); mend that, or name another file"
        raise UsageError(message) from error


def _read_values(path: Path, skipped: list[str] | None, part: Part | None) -> Iterator[tuple[int, Any]]:
    if path.suffix == PARQUET:
        yield from _read_parquet(path, part)
        return
    with path.open("rb") as stream:
        if part:
            stream.seek(part.start)
            yield from _read_lines(path, _lines_until(stream, part.stop), skipped, part.first)
        elif begins_array(stream):
            yield from _read_array(path, stream.read(), skipped)
        else:
            yield from _read_lines(path, stream, skipped)


def begins_array(stream: io.BufferedReader) -> bool:
    """Whether a file is a JSON array and not JSON lines. Peeked at, not read: it may be a pipe."""
    return stream.peek().removeprefix(BOM).lstrip().startswith(b"[")


def _lines_until(stream: BinaryIO, stop: int) -> Iterator[bytes]:
    left = stop - stream.tell()
    while left > 0:
        line = stream.readline()
        left -= len(line)
        yield line


def _read_array(path: Path, data: bytes, skipped: list[str] | None) -> Iterator[tuple[int, Any]]:
    text = data.removeprefix(BOM)
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        why, line = _why_not_json(data, error)
        message = f"{path}:{line}: {why}"
        raise BadRecordError(message) from error
    faults = array_faults(text, values)
    for number, value in enumerate(exact_array(text, values), start=1):
        if number in faults:
            _refuse(f"{place(path, number)}: {faults[number]}", skipped)
        else:
            yield number, value


def _read_lines(
    path: Path, stream: Iterable[bytes], skipped: list[str] | None, first: int = 1
) -> Iterator[tuple[int, Any]]:
    for number, raw in enumerate(stream, start=first):
        line = (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")
        if not line:
            continue
        try:
            value = orjson.loads(line)
            fault = record_fault(line, value)
        except orjson.JSONDecodeError as error:
            fault, _ = _why_not_json(raw, error)
        if fault:
            _refuse(f"{place(path, number)}: {fault}", skipped)
        else:
            yield number, exact(line, value)


def _read_parquet(path: Path, part: Part | None) -> Iterator[tuple[int, Any]]:
    parquet = import_parquet()
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                message = f"{path}: the column '{twice}' stands twice; rename one"
                raise BadRecordError(message)
            batches = file.iter_batches(row_groups=range(part.start, part.stop) if part else None)
            values = (value for batch in batches for value in batch.to_pylist())
            yield from enumerate(values, start=part.first if part else 1)
    except UnicodeDecodeError as error:
        message = f"{path}: a text is not UTF-8 ({error.reason})"
        raise BadRecordError(message) from error
    except (ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # it is the system that says so, not pyarrow of the data
        message = f"{path}: not a Parquet file, or a damaged one ({str(error).splitlines()[0]})"
        raise BadRecordError(message) from error


def _why_not_json(data: bytes, error: orjson.JSONDecodeError) -> tuple[str, int]:
    """What to say of data that orjson refused, and in which line of it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as broken:
        line = data.count(b"\n", 0, broken.start)
        # Counted from 0 and from the beginning of the line, as the file has it.
        start = broken.start - (data.rfind(b"\n", 0, broken.start) + 1)
        return f"not UTF-8 at byte {start} ({broken.reason})", line + 1
    return field_fault(text.removeprefix("\ufeff")) or f"not JSON ({error.msg} at column {error.colno})", error.lineno


def _json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a string")


def alpaca_records(tasks: Iterable[Task]) -> Iterator[dict[str, str]]:
    """The rows of the published Alpaca format: one for each instance of each task."""
    for task in tasks:
        for instance in task.instances:
            yield {"instruction": task.instruction, "input": instance.input, "output": instance.output}


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the bytes of the files in the order given (their names do not count)."""
    digest = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
