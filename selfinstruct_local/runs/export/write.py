"""Writes the accepted tasks of a run to one file in one of the formats: whole or not at all, always the same bytes.

Beside it goes a card that tells what made it.
"""

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
        records: written to the file.
        tasks: that they are of.
        bare: tasks left out because they are instructions without instances.
        card: the README beside the file that tells what made it.
    """

    records: int
    tasks: int
    bare: int
    card: Path


def check_format(name: str, path: Path) -> None:
    """Refuses what needs no run to be refused.

    Raises:
        UsageError: no such format, or it cannot be written to a file of that ending.
    """
    if name not in FORMATS:
        message = f"--format {name}: one of {', '.join(FORMATS)}"
        raise UsageError(message)
    if name == REGEN and path.suffix == PARQUET:
        message = (
            f"--out {path}: regen's most_similar_instructions has texts for keys, and Parquet would make a column of "
            "each; name a .json or .jsonl file"
        )
        raise UsageError(message)


def export_run(store: RunStore, name: str, path: Path, advance: Callable[[int], None] = lambda _: None) -> Exported:
    """Writes what the run accepted, in the order of its pool, and the card beside it.

    Args:
        store: the run; it may be at work.
        name: one of `FORMATS`.
        path: its ending decides as in `recordio.open_writer`; its folder is made.
        advance: called with the number of further tasks.

    Raises:
        UsageError: `check_format` refuses it, the file cannot be written or is one of a run's own, or the run
            has no task with instances, or its review cannot be read.
        RunError: the disk is full.
    """
    check_format(name, path)
    check_targets({"--out": path})
    read_review(store.folder)  # the card shows it: a broken one is refused before anything is written
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
            message = f"{store.folder}: nothing to export: {only}; go on with 'selfinstruct generate'"
            raise UsageError(message)
    return Exported(records, tasks, bare, write_card(store, path, name, records))


def _make_format(store: RunStore, name: str) -> Format:
    if name != REGEN:
        return PLAIN_FORMATS[name]
    from selfinstruct_local.runs.export.similarity import Neighborhood  # imports numba

    seeds = [seed.instruction for seed in store.seeds()]
    return partial(regen, neighborhood=Neighborhood(seeds, TOKENIZERS[store.facts().get("lang", "en")]))
