"""The output folder of a training: what it holds, whether this training may go on in it, and whether it has room.

It holds the weights as safetensors, `settings.json`, which says what is trained on what and is written first,
`loss.csv` and `loss.png`, TensorBoard's files, the last checkpoints, a card (`README.md`), and `training.json`, which
is written last.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local import __version__
from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import obey_umask, replace_atomically
from selfinstruct_local.io.locks import take_lock
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.adapter import TRAINING_MANIFEST
from selfinstruct_local.train.checkpoints import Checkpoint, checkpoint_bytes, find_checkpoints
from selfinstruct_local.train.data import TrainingData
from selfinstruct_local.train.memory import FLOAT32, GIB
from selfinstruct_local.train.network_size import count_parameters, read_config
from selfinstruct_local.train.processes import is_first
from selfinstruct_local.train.settings import TrainSettings

_SETTINGS = "settings.json"
_LOCK = "training.lock"
# Of the settings, those that may change between two starts of one training.
_EXECUTING = frozenset({"save_steps", "keep_checkpoints", "max_dropped"})
# What must be the same beside them.
_DECIDING = ("data_sha256", "examples_a_step")


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The folder of one training.

    Attributes:
        path: an existing, writable folder.
        facts: what makes the training this one: model, data, settings.
        checkpoints: the latest first, down to the first whole one.
    """

    path: Path
    facts: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]

    @property
    def start(self) -> Checkpoint | None:
        """What to go on from."""
        return next((each for each in self.checkpoints if not each.fault), None)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done and what they made is saved."""
        return (self.path / TRAINING_MANIFEST).is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other trainings off the folder for the block: twice the same command would write over each other.

        Raises:
            UsageError: another process trains there.
        """
        if not is_first():
            yield
            return
        busy = "another process trains there; wait for it, or name another folder"
        # Large shared disks are mounted without locks at many sites; models belong there all the same.
        lock = take_lock(self.path / _LOCK, f"--out {self.path}", busy, needs_locks=False)
        try:
            yield
        finally:
            os.close(lock)

    def note_begin(self) -> None:
        """Writes down whose folder it is."""
        self._write(_SETTINGS)

    def note_end(self) -> None:
        """Writes down that the training is done."""
        if is_first():
            obey_umask(self.path)
        self._write(TRAINING_MANIFEST)

    def _write(self, name: str) -> None:
        if is_first():
            with replace_atomically(self.path / name) as stream:
                stream.write(orjson.dumps(self.facts, option=orjson.OPT_INDENT_2))


def open_folder(
    path: Path, data: TrainingData, model: ModelFolder, settings: TrainSettings, processes: int = 1
) -> TrainingFolder:
    """Looks whether the training of `model` on `data` is to begin, to go on or to end here.

    Args:
        path: an existing, writable folder.
        data: the examples.
        model: the base.
        settings: see `TrainSettings`.
        processes: that train together.

    Raises:
        UsageError: the folder holds a training on other data or with other settings, or there is too little room.
    """
    facts = _facts_of(data, model, settings, processes)
    settings_file = path / _SETTINGS
    checkpoints: list[Checkpoint] = []
    if settings_file.is_file():
        if different := sorted(_different(orjson.loads(settings_file.read_bytes()), facts, model)):
            message = f"--out {path}: holds a training that differs in {', '.join(different)}; name another folder"
            raise UsageError(message)
        checkpoints = find_checkpoints(path)
    folder = TrainingFolder(path, facts, tuple(checkpoints))
    if not folder.is_done:
        check_room(path, model, settings)
    return folder


def check_room(out: Path, model: ModelFolder, settings: TrainSettings) -> None:
    """Checks that the checkpoints and the result will fit on the disk: better now than after the first epoch.

    A checkpoint holds the model or the LoRA matrices, and the two states of AdamW for what is trained, in float32.
    Before the oldest goes there is one more than are kept. Those that an earlier start left have their room already,
    and go as new ones come.

    Raises:
        UsageError: they will not.
    """
    parameters, trainable = count_parameters(read_config(model.load_path), settings)
    saved = parameters if settings.method == "full" else trainable
    needed = FLOAT32 * ((saved + 2 * trainable) * (settings.keep_checkpoints + 1) + saved)
    held = checkpoint_bytes(out)
    free = shutil.disk_usage(out).free
    if free + held < needed:
        there = f", {held / GIB:.1f} GiB of it there already" if held else ""
        message = (
            f"--out {out}: {settings.keep_checkpoints + 1} checkpoints and the result take {needed / GIB:.1f} GiB"
            f"{there}, and {free / GIB:.1f} GiB are free; make room or name another folder"
        )
        raise UsageError(message)


def _facts_of(data: TrainingData, model: ModelFolder, settings: TrainSettings, processes: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    for example in [*data.examples, *data.held_out]:
        digest.update(orjson.dumps([example.input_ids, example.labels]))
    return {
        "version": __version__,
        "base_model": str(model.path),
        "base_model_fingerprint": model.fingerprint,
        "base_model_files": dict(model.files),
        "template": settings.template,
        "settings": settings.model_dump(mode="json"),
        "processes": processes,
        "examples_a_step": settings.batch_size * settings.accumulation(processes) * processes,
        "examples": len(data.examples),
        "held_out": len(data.held_out),
        "supervised_tokens": data.supervised_tokens,
        "dropped": data.dropped,
        "data_sha256": digest.hexdigest(),
    }


def _different(told: dict[str, Any], facts: dict[str, Any], model: ModelFolder) -> list[str]:
    names = [name.removesuffix("_sha256") for name in _DECIDING if told.get(name) != facts[name]]
    if files := model.differences(told.get("base_model_fingerprint"), told.get("base_model_files")):
        names.append(f"base_model ({', '.join(files)})")
    before = told.get("settings", {})
    return names + [
        name for name, value in facts["settings"].items() if name not in _EXECUTING and before.get(name) != value
    ]
