"""`selfinstruct seeds import`: conversion of tasks in other formats to seeds.

Reads the published Self-Instruct seeds, Alpaca records, and plain lists with one instruction per line. Ids are made
unique, other fields are kept, and texts are normalised: Unicode NFC, line feeds as line ends, no trailing white space.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import BOM, BadRecordError, Row, read_rows
from selfinstruct_local.io.records import case_fields
from selfinstruct_local.io.writer import open_writer
from selfinstruct_local.seedfiles.text import cleaned
from selfinstruct_local.task import Instance, Task

_FIRST_FIELDS = ("id", "name", "instruction", "instances", "is_classification")
# Name of a record format by the field of its outputs.
_KINDS = {
    "instances": "Self-Instruct seeds",
    "raw_instances": "Self-Instruct completions",
    "response": "Dolly records",
    "output": "Alpaca records",
}
_BULLET = re.compile(r"^(?:[-*\u2022]|\d+[.)\u3001])\s+")  # bullet or number of a copied list


@dataclass(frozen=True, slots=True)
class ImportedSeeds:
    """Counts of an import.

    Attributes:
        kind: format of the records, for display.
        seeds: number of seeds.
        new_ids: seeds with a new id, since theirs was missing or a duplicate.
        cleaned: seeds with a text that was changed by normalisation.
        without_output: seeds with an empty output.
    """

    kind: str
    seeds: int
    new_ids: int
    cleaned: int
    without_output: int


def import_seeds(source: Path, out: Path, *, bare: bool = False) -> ImportedSeeds:
    """Convert tasks to seeds and return the counts; `out` is written atomically.

    Args:
        source: JSONL, a JSON array or Parquet of Self-Instruct seeds or Alpaca records; or a `.txt` file with one
            instruction per line.
        out: JSONL file of the seeds.
        bare: whether tasks without an output are written too, with an empty one.

    Raises:
        UsageError: the source cannot be read, or has tasks without an output and `bare` is False.
    """
    kind, rows = _read_list(source) if _is_list(source) else _read_records(source)
    without = [row.number for row in rows if not all(instance.output.strip() for instance in row.task.instances)]
    if without and not bare:
        message = (
            f"{source}: {len(without)} of {len(rows)} tasks have no output (the first is number {without[0]}), which "
            "seeds need; write the outputs, or use --bare to fill them in later"
        )
        raise UsageError(message)
    ids = _unique_ids([row.task.id for row in rows], source.stem)
    clean = [_cleaned_task(row.task) for row in rows]
    with open_writer(out, lines=True) as writer:
        for row, task, name in zip(rows, clean, ids, strict=True):
            writer.write(_seed_record(row.record, task, name))
    return ImportedSeeds(
        kind,
        seeds=len(rows),
        new_ids=sum(name != row.task.id for row, name in zip(rows, ids, strict=True)),
        cleaned=sum(task != row.task for row, task in zip(rows, clean, strict=True)),
        without_output=len(without),
    )


def _is_list(source: Path) -> bool:
    """Return whether `source` is a plain list: a .txt file that does not begin like JSON."""
    if source.suffix != ".txt" or not source.is_file():
        return False
    with source.open("rb") as stream:
        return not stream.read(1024).removeprefix(BOM).lstrip().startswith((b"{", b"["))


def _read_list(source: Path) -> tuple[str, list[Row]]:
    rows = []
    for number, line in enumerate(source.read_bytes().removeprefix(BOM).split(b"\n"), start=1):
        try:
            instruction = _BULLET.sub("", line.decode().strip())
        except UnicodeDecodeError as error:
            message = f"{source}:{number}: not UTF-8 at byte {error.start} ({error.reason})"
            raise BadRecordError(message) from error
        if instruction:
            rows.append(Row(number, {}, Task.single(instruction)))
    if not rows:
        message = f"{source}: has no instructions; write one per line"
        raise UsageError(message)
    return "instructions of a plain list", rows


def _read_records(source: Path) -> tuple[str, list[Row]]:
    rows = []
    for row in read_rows(source):
        instances = row.task.instances or (Instance("", ""),)
        rows.append(row._replace(task=row.task._replace(instances=instances)))
    read = {name for row in rows for name in case_fields(row.record)}
    return " and ".join(kind for name, kind in _KINDS.items() if name in read), rows


def _unique_ids(ids: Sequence[str], stem: str) -> list[str]:
    """Return unique ids; a missing or duplicate id is replaced by the file's stem and a number."""
    taken = set(ids)
    unique: list[str] = []
    given: set[str] = set()
    for number, name in enumerate(ids, start=1):
        new, again = name, number
        while not new or new in given or (new != name and new in taken):
            new = f"{stem}-{again:03}"
            again += len(ids)
        given.add(new)
        unique.append(new)
    return unique


def _cleaned_task(task: Task) -> Task:
    instances = tuple(Instance(cleaned(each.input), cleaned(each.output)) for each in task.instances)
    return task._replace(instruction=cleaned(task.instruction).strip(), instances=instances)


def _seed_record(record: dict[str, Any], task: Task, name: str) -> dict[str, Any]:
    """Return the record of a seed: the fields of the format first, then all other fields of `record`."""
    read = case_fields(record) - {"instances"}
    seed = {
        **record,
        "id": name,
        "instruction": task.instruction,
        "instances": [each._asdict() for each in task.instances],
    }
    order = [*_FIRST_FIELDS, *(field for field in record if field not in _FIRST_FIELDS)]
    # Null values are omitted: a table column has them for records without the field.
    return {field: seed[field] for field in order if field not in read and seed.get(field) is not None}
