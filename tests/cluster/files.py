"""Files of tasks for the tests of the filter on Ray, and the filter of one machine to hold it against."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from selfinstruct_local.filters.decide import Decider
from selfinstruct_local.filters.files import FileFilter
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.kernels import NoveltyIndex
from tests.kernels import oracles

WORKERS = 2
Record = dict[str, Any]


def records(count: int, seed: int = 1) -> list[Record]:
    """Tasks rich in copies, near copies and chains of them, with some that a rule refuses."""
    stream = random.Random(seed)
    texts = [" ".join(tokens) for tokens in oracles.near_copies(seed, count)]
    stream.shuffle(texts)
    return [
        {"instruction": text, "input": "", "output": "" if stream.random() < 0.02 else f"Answer {number}."}
        for number, text in enumerate(texts)
    ]


def write_lines(path: Path, rows: Sequence[Record]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


def on_one_machine(
    files: Sequence[Path], known: Sequence[Path], folder: Path, threshold: float = 0.7, rules: str = "alpaca"
) -> tuple[list[Record], list[Record]]:
    local = FileFilter(Decider(rule_set(rules), NoveltyIndex(threshold)))
    for path in known:
        local.add_known(path)
    folder.mkdir()
    local.filter_files(files, folder / "kept.jsonl", folder / "rejects.jsonl")
    return read_lines([folder / "kept.jsonl"]), read_lines([folder / "rejects.jsonl"])


def read_lines(paths: Sequence[Path]) -> list[Record]:
    return [orjson.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def read_folder(out: Path) -> tuple[list[Record], list[Record]]:
    kept = [row for path in sorted((out / "kept").iterdir()) for row in pq.read_table(path).to_pylist()]
    return kept, read_lines(sorted((out / "rejected").iterdir()))
