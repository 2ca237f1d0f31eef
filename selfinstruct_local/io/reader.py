"""Reads files of tasks: JSONL, a JSON array or Parquet, in the formats of Self-Instruct, Alpaca and Dolly.

The fields of a record determine its format: a record with `instances` is a seed (the published Self-Instruct seeds have
the same format), otherwise `instruction`, `input` and `output` are Alpaca's; `records.py` has the other formats. Lines
end only at line feeds, so U+2028 and U+0085 inside a text are text.
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
# Fields for the output in other formats.
_OUTPUT_LIKE = ("response", "answer", "completion", "target", "solution", "reply", "outputs", "responses", "answers")


class BadRecordError(UsageError):
    """An invalid record; the message names the file and the line (or the array position)."""


class UnreadFieldWarning(UserWarning):
    """A warning that records have a field that is not read and may be their output."""


class Part(NamedTuple):
    """A part of a file that can be read separately.

    Attributes:
        start: first byte, at the start of a line; for Parquet, first row group.
        stop: byte or row group after the last one.
        first: number of the first line or row, from 1.
    """

    start: int
    stop: int
    first: int


class Row(NamedTuple):
    """A task with its record, which can have fields that this program does not know.

    Attributes:
        number: line in a JSONL file, or position in a JSON array, from 1.
        record: the record as read from the file.
        task: the record as a `Task`.
    """

    number: int
    record: dict[str, Any]
    task: Task


def task_from_record(record: Any) -> Task:
    """Return the task in a parsed JSON value.

    Raises:
        ValueError: it is not an object, or a field is missing or has the wrong type.
    """
    if not isinstance(record, dict):
        message = f"expected an object with an 'instruction', found {_json_type(record)}"
        raise ValueError(message)  # noqa: TRY004 - a fault of the data, like the others
    if record.keys() <= PLAIN_FIELDS:
        # Most records have three texts: this check is five times faster than a pydantic model.
        instruction, task_input, output = record.get("instruction"), record.get("input"), record.get("output")
        if type(instruction) is str and type(task_input) in _TEXT_OR_NULL and type(output) in _TEXT_OR_NULL:
            return Task(instruction, (Instance(task_input or "", output or ""),))
    from selfinstruct_local.io.records import checked_task

    return checked_task(record)


def unread_output(record: dict[str, Any]) -> str | None:
    """Return the name of a field that may be the output and is not read, or None."""
    if record.keys() <= PLAIN_FIELDS or record.get("instances") or record.get("raw_instances"):
        return None
    output, response = record.get("output"), record.get("response")
    if isinstance(output, str) and output.strip():
        return "response" if isinstance(response, str) and response.strip() not in {"", output.strip()} else None
    from selfinstruct_local.io.records import case_fields

    return next((name for name in _OUTPUT_LIKE if record.get(name) and name not in case_fields(record)), None)


def warn_of_unread(path: Path | str, unread: Counter[str]) -> None:
    """Warn about the fields that `unread_output` found in the records of a file.

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
    """Yield the tasks of a file, and warn at its end about fields that may be outputs and are not read.

    Args:
        path: JSONL, one JSON array, or Parquet.
        skipped: list that gets a description of each invalid record, which is then skipped; None raises an error.
        part: part of a JSONL or Parquet file; None reads all of it. A part may have no record.
        unread: counter that gets the unread fields by name, instead of a warning.

    Raises:
        UsageError: the file is missing, cannot be read or has no record.
        BadRecordError: a record is invalid and `skipped` is None.
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
        message = f"{path}: has no task; write one JSON object per line, or a JSON array of objects"
        raise UsageError(message)


def read_tasks(path: Path) -> list[Task]:
    """Return all tasks of a file. Raises as `read_rows` does."""
    return [row.task for row in read_rows(path)]


def place(path: Path, number: int) -> str:
    """Return the name of a record in messages: file and line, or file and position in an array or table."""
    return f"{path}: record {number}" if path.suffix in {".json", PARQUET} else f"{path}:{number}"


def _refuse(message: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise BadRecordError(message)
    skipped.append(message)


def read_values(path: Path, skipped: list[str] | None = None, part: Part | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the parsed records of a file, not validated, numbered as in `Row`; arguments as in `read_rows`."""
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
    """Turn an OSError of the block, which reads the file, into a UsageError that names the file.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        message = f"{path}: cannot be read ({why}); fix the cause, or name another file"
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
    """Return whether a file is a JSON array and not JSON lines, without consuming input: it may be a pipe."""
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
                message = f"{path}: duplicate column '{twice}'; rename one of them"
                raise BadRecordError(message)
            batches = file.iter_batches(row_groups=range(part.start, part.stop) if part else None)
            values = (value for batch in batches for value in batch.to_pylist())
            yield from enumerate(values, start=part.first if part else 1)
    except UnicodeDecodeError as error:
        message = f"{path}: a text is not UTF-8 ({error.reason})"
        raise BadRecordError(message) from error
    except (ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # an error of the system, not of the data
        message = f"{path}: not a Parquet file, or corrupt ({str(error).splitlines()[0]})"
        raise BadRecordError(message) from error


def _why_not_json(data: bytes, error: orjson.JSONDecodeError) -> tuple[str, int]:
    """Return why orjson rejected the data, and in which line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as broken:
        line = data.count(b"\n", 0, broken.start)
        # Counted from 0 at the start of the line in the file.
        start = broken.start - (data.rfind(b"\n", 0, broken.start) + 1)
        return f"not UTF-8 at byte {start} ({broken.reason})", line + 1
    return field_fault(text.removeprefix("\ufeff")) or f"not JSON ({error.msg} at column {error.colno})", error.lineno


def _json_type(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a string")


def alpaca_records(tasks: Iterable[Task]) -> Iterator[dict[str, str]]:
    """Yield records of the published Alpaca format, one per instance of each task."""
    for task in tasks:
        for instance in task.instances:
            yield {"instruction": task.instruction, "input": instance.input, "output": instance.output}


def fingerprint(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the bytes of the files in the given order, independent of their names."""
    digest = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
