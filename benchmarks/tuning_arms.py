"""The arms of `bench_data_value.py`: the rows that each one tunes on, and their trainable tokens."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson
from bench_rules import read_file, sample

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from selfinstruct_local.train.data import Example, make_examples
from selfinstruct_local.train.settings import load_train_settings
from selfinstruct_local.train.sources import samples_of_record
from selfinstruct_local.train.trainer import load_tokenizer

SEEDS = "seeds"
NAME = re.compile(r"\w[\w.-]*")
DRAW = 0  # random seed for drawing the tasks of an arm
# A small model and few examples need a higher learning rate than LLaMA-7B.
SETTINGS = {
    "method": "full",
    "template": "alpaca",
    "max_length": 512,
    "overlong": "truncate",
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 5e-5,
    "warmup_ratio": 0.1,
}
Rows = list[dict[str, str]]


def parse_arms(texts: Sequence[str]) -> dict[str, Path]:
    """Return the paths of `NAME=PATH` texts by name.

    Raises:
        UsageError: a name is missing, already used, or not a plain file name.
    """
    arms: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not path or not NAME.fullmatch(name):
            message = f"--arm {text}: write NAME=PATH, with a name of letters, digits, '-', '_' and '.'"
            raise UsageError(message)
        if name in {*arms, SEEDS, "expert", "untuned"}:
            message = f"--arm {text}: the name '{name}' is taken; choose another"
            raise UsageError(message)
        arms[name] = Path(path)
    return arms


def make_arms(paths: Mapping[str, Path], num: int, model: ModelFolder) -> dict[str, Rows]:
    """Return the rows of each arm, those of the seeds last.

    Raises:
        UsageError: an arm has fewer than `num` tasks.
    """
    arms: dict[str, Rows] = {}
    for name, path in paths.items():
        tasks = [task for task in read_arm(path) if task.output.strip()]
        if len(tasks) < num:
            message = f"--arm {name}={path}: has {len(tasks)} tasks with an output; lower --num {num}"
            raise UsageError(message)
        arms[name] = [row_of(task) for task in sample(tasks, num, DRAW)]
    seeds = [
        {"instruction": task.instruction, "input": case.input, "output": case.output}
        for task in read_tasks(seed_file())
        for case in task.instances
    ]
    random.Random(DRAW).shuffle(seeds)  # noqa: S311 - a draw of data
    wanted = sum(trainable(next(iter(arms.values())), model))
    arms[SEEDS] = seeds[: nearest_cut(trainable(seeds, model), wanted)]
    return arms


def read_arm(path: Path) -> list[Task]:
    """Return the accepted tasks of a run, or the tasks of a file."""
    if not path.is_dir():
        return read_file(path)
    with RunStore(path, read_only=True) as run:
        return list(run.accepted())


def row_of(task: Task) -> dict[str, str]:
    """Return a task with its first instance, in Alpaca's format."""
    return {"instruction": task.instruction, "input": task.input, "output": task.output}


def trainable(rows: Rows, model: ModelFolder) -> list[int]:
    """Return the trainable tokens of each row under the training settings; 0 for a row that they drop."""
    settings = load_train_settings(None, None, SETTINGS)
    samples = (each for row in rows for each in samples_of_record(row))
    made = make_examples(samples, load_tokenizer(model), settings)
    return [each.supervised if isinstance(each, Example) else 0 for each in made]


def nearest_cut(tokens: Sequence[int], wanted: int) -> int:
    """Return how many of the first rows have `wanted` tokens in total, as near as whole rows allow; at least 1."""
    return int(np.abs(np.cumsum(tokens) - wanted).argmin()) + 1


def store_rows(path: Path, rows: Rows) -> None:
    """Write the rows; an existing file must hold the same rows.

    Raises:
        UsageError: the file holds other rows, so the results next to it are for other data.
    """
    data = orjson.dumps(rows, option=orjson.OPT_INDENT_2)
    if path.exists() and path.read_bytes() != data:
        message = f"{path}: holds other tasks, for which there may be results; name a new --folder"
        raise UsageError(message)
    with replace_atomically(path) as stream:
        stream.write(data)
