"""Writes the accepted tasks of a run to one file in an export format, atomically and reproducibly, with its card."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.writer import PARQUET, open_writer
from selfinstruct_local.languages.base import TOKENIZERS
from selfinstruct_local.runs.export.card import write_card
from selfinstruct_local.runs.export.formats import FORMATS, PLAIN_FORMATS, REGEN, Format, regen
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.runs.store.review import read_review
from selfinstruct_local.runs.targets import check_targets


class Exported(NamedTuple):
    """Counts of an export.

    Attributes:
        records: number of records in the file.
        tasks: number of tasks in the file.
        bare: number of tasks left out because they have no instances.
        card: the README next to the file with its origin.
    """

    records: int
    tasks: int
    bare: int
    card: Path


def check_format(name: str, path: Path) -> None:
    """Raise UsageError if the format cannot be written to the file.

    Raises:
        UsageError: there is no such format, or it does not support the suffix of the file.
    """
    if name not in FORMATS:
        message = f"--format {name}: use one of {', '.join(FORMATS)}"
        raise UsageError(message)
    if name == REGEN and path.suffix == PARQUET:
        message = (
            f"--out {path}: regen's most_similar_instructions has texts as keys, and Parquet would make a column of "
            "each; name a .json or .jsonl file"
        )
        raise UsageError(message)


def export_run(store: RunStore, name: str, path: Path, advance: Callable[[int], None] = lambda _: None) -> Exported:
    """Write the accepted tasks in the order of the pool, and the card next to the file; return the counts.

    Args:
        store: the run, which can be running.
        name: one of `FORMATS`.
        path: file to write; its suffix selects the file format as in `io.writer.open_writer`, its folder is created.
        advance: called with the number of further tasks.

    Raises:
        UsageError: `check_format` fails, the file cannot be written or is a run's own file, the run has no
            task with instances, or its review cannot be read.
        RunError: the disk is full.
    """
    check_format(name, path)
    check_targets({"--out": path})
    read_review(store.folder)  # for the card: an invalid review is reported before anything is written
    records_of = _make_format(store, name)
    records = tasks = bare = 0
    with open_writer(path) as writer:
        for task in store.accepted():
            for record in records_of(task):
                writer.write(record)
                records += 1
            tasks += bool(task.instances)
            bare += not task.instances
            advance(1)
        if not records:
            only = f"only {bare} bare instructions" if bare else "no accepted task yet"
            message = f"{store.folder}: nothing to export: {only}; generate tasks with 'selfinstruct generate'"
            raise UsageError(message)
    return Exported(records, tasks, bare, write_card(store, path, name, records))


def _make_format(store: RunStore, name: str) -> Format:
    if name != REGEN:
        return PLAIN_FORMATS[name]
    from selfinstruct_local.runs.export.similarity import Neighborhood  # imports numba

    seeds = [seed.instruction for seed in store.seeds()]
    return partial(regen, neighborhood=Neighborhood(seeds, TOKENIZERS[store.facts().get("lang", "en")]))
