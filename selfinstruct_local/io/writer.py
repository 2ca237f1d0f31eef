"""Writes records atomically as JSON lines, one JSON array, or Parquet.

The suffix of the file name selects the format. Parquet needs pyarrow: the extra `parquet`, or `train`.
"""

import json
from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import replace_atomically

if TYPE_CHECKING:
    from pyarrow import DataType, Schema, Table

PARQUET = ".parquet"
ROW_GROUP = 16384


class RecordWriter(Protocol):
    """A writer that takes records one by one."""

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""


@contextmanager
def open_writer(path: Path, *, lines: bool = False, schema: "Schema | None" = None) -> Iterator[RecordWriter]:
    """Yield a writer whose file replaces `path` when the block ends without an error.

    Args:
        path: file to write: `.json` for one indented array, `.parquet` for Parquet, any other suffix for JSON lines.
        lines: write JSON lines for every suffix.
        schema: columns of a Parquet file; None takes those of its first row group.

    Raises:
        UsageError: Parquet needs pyarrow, which is missing; or a record has a value that the format cannot represent.
    """
    with replace_atomically(path) as stream:
        if lines or path.suffix not in {".json", PARQUET}:
            yield _LineWriter(stream)
        elif path.suffix == ".json":
            array = _ArrayWriter(stream)
            yield array
            array.close()
        else:
            table = _ParquetWriter(stream, schema)
            try:
                yield table
                table.finish()
            finally:
                table.close()


def _dump(record: dict[str, Any], option: int = 0) -> bytes:
    try:
        return _json(record, option)
    except (TypeError, ValueError) as error:  # a value from a Parquet column, such as bytes
        message = f"field '{_unwritable(record)}': JSON cannot represent its value ({error}); write Parquet"
        raise UsageError(message) from error


def _json(value: Any, option: int = 0) -> bytes:
    """Return the JSON of a value; the standard `json` writes integers beyond 64 bits, which orjson rejects."""
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError:
        layout: dict[str, Any] = {"indent": 2} if option & orjson.OPT_INDENT_2 else {"separators": (",", ":")}
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, **layout)
        return text.encode() + (b"\n" if option & orjson.OPT_APPEND_NEWLINE else b"")


def _unwritable(record: dict[str, Any]) -> str:
    for name, value in record.items():
        try:
            _json(value)
        except (TypeError, ValueError):
            return name
    return next(iter(record), "")


class _LineWriter:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(_dump(record, orjson.OPT_APPEND_NEWLINE))


class _ArrayWriter:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._before = b"[\n"

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(self._before)
        self._stream.write(_dump(record, orjson.OPT_INDENT_2))
        self._before = b",\n"

    def close(self) -> None:
        self._stream.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


class _ParquetWriter:
    """A writer that buffers one row group; without a schema, the first group determines the columns."""

    def __init__(self, stream: BinaryIO, schema: "Schema | None") -> None:
        self._parquet = import_parquet()
        self._stream = stream
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def write(self, record: dict[str, Any]) -> None:
        self._rows.append(record)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        try:
            later = _later_field(self._rows, self._schema) if self._schema is not None else None
            if later:
                message = (
                    f"field '{later}': not in the first records, from which Parquet takes its columns; write JSON lines"
                )
                raise UsageError(message)
            table = as_table(self._rows, self._schema)
            if self._writer is None:
                self._schema = table.schema
                self._writer = self._parquet.ParquetWriter(self._stream, self._schema)
            self._writer.write_table(table)
        except (pa.ArrowException, OverflowError) as error:
            message = f"{describe_misfit(self._rows, error, self._schema)}; write JSON lines"
            raise UsageError(message) from error
        self._rows.clear()

    def finish(self) -> None:
        if self._rows or self._writer is None:
            self._flush()

    def close(self) -> None:
        """Close the Parquet writer while its stream is open; otherwise pyarrow would raise an error later."""
        if self._writer is not None:
            self._writer.close()


def _later_field(records: Sequence[dict[str, Any]], schema: "Schema") -> str | None:
    """Return a field of a record, at any depth, that the schema lacks, or None; Arrow silently drops a nested one."""
    import pyarrow as pa

    if later := _names(records) - set(schema.names):
        return min(later)
    nested = [field for field in schema if pa.types.is_nested(field.type)]
    found = (pa.array([record.get(field.name) for record in records]).type for field in nested)
    inner = (_later_inside(kind, field.type, field.name) for kind, field in zip(found, nested, strict=True))
    return next(filter(None, inner), None)


def _later_inside(found: "DataType", kind: "DataType | None", name: str) -> str | None:
    from pyarrow import types

    if kind is None:
        return name
    if types.is_list(found) and types.is_list(kind):
        return _later_inside(found.value_type, kind.value_type, name)
    if types.is_struct(found) and types.is_struct(kind):
        known = {field.name: field.type for field in kind}
        inner = (_later_inside(field.type, known.get(field.name), f"{name}.{field.name}") for field in found)
        return next(filter(None, inner), None)
    return None


def as_table(records: Sequence[dict[str, Any]], schema: "Schema | None" = None) -> "Table":
    """Return records as a table; without a schema it has the fields of all records, in order of appearance.

    Raises:
        ArrowException, OverflowError: a table cannot represent a value.
    """
    import pyarrow as pa

    if schema is not None:
        return pa.Table.from_pylist(records, schema=schema)
    return pa.table({name: [record.get(name) for record in records] for name in _names(records)})


def describe_misfit(records: Sequence[dict[str, Any]], error: Exception, schema: "Schema | None" = None) -> str:
    """Return why `as_table` rejected the records, with the name of the field if a single one is the cause."""
    import pyarrow as pa

    for name in _names(records):
        try:
            pa.array([record.get(name) for record in records], schema.field(name).type if schema is not None else None)
        except (pa.ArrowException, OverflowError) as found:
            return f"field '{name}': Parquet cannot represent a record ({str(found).splitlines()[0]})"
    return f"Parquet cannot represent a record ({str(error).splitlines()[0]})"


def _names(records: Sequence[dict[str, Any]]) -> KeysView[str]:
    return dict.fromkeys(name for record in records for name in record).keys()


def import_parquet() -> ModuleType:
    """Return the module `pyarrow.parquet`.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        message = "Parquet needs pyarrow, which is missing; install this package with its extra 'parquet'"
        raise UsageError(message) from error
    return parquet
