"""The output folder of a training: its content, whether a training can resume in it, and its disk space.

The folder has `settings.json` with the settings, model and data (written first), the weights as safetensors,
`loss.csv` and `loss.png`, TensorBoard event files, the latest checkpoints, a model card (`README.md`), and
`training.json` (written last).
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
# Settings that may change when a training is resumed.
_EXECUTING = frozenset({"save_steps", "keep_checkpoints", "max_dropped"})
# Facts that must be the same in addition to the other settings.
_DECIDING = ("data_sha256", "examples_a_step")


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The output folder of one training.

    Attributes:
        path: an existing, writable folder.
        facts: model, data and settings that identify the training.
        checkpoints: latest first, up to and including the first complete one.
    """

    path: Path
    facts: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]

    @property
    def start(self) -> Checkpoint | None:
        """The checkpoint to resume from, or None."""
        return next((each for each in self.checkpoints if not each.fault), None)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done and the result is saved."""
        return (self.path / TRAINING_MANIFEST).is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder for the block, so that a second training cannot write to it.

        Raises:
            UsageError: another process trains in the folder.
        """
        if not is_first():
            yield
            return
        busy = "another process is training there; wait for it, or name another folder"
        # At many sites, large shared disks are mounted without file locks; they must still be usable for models.
        lock = take_lock(self.path / _LOCK, f"--out {self.path}", busy, needs_locks=False)
        try:
            yield
        finally:
            os.close(lock)

    def note_begin(self) -> None:
        """Write `settings.json`, which claims the folder for this training."""
        self._write(_SETTINGS)

    def note_end(self) -> None:
        """Write `training.json`, which marks the training as done."""
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
    """Return the folder of the training of `model` on `data`, with the checkpoints to resume from.

    Args:
        path: an existing, writable folder.
        data: training data.
        model: base model.
        settings: settings of the training.
        processes: number of processes that train together.

    Raises:
        UsageError: the folder has a training with another model, other data or other settings, or the disk has too
            little free space.
    """
    facts = _facts_of(data, model, settings, processes)
    settings_file = path / _SETTINGS
    checkpoints: list[Checkpoint] = []
    if settings_file.is_file():
        if different := sorted(_different(orjson.loads(settings_file.read_bytes()), facts, model)):
            message = f"--out {path}: has a training that differs in {', '.join(different)}; name another folder"
            raise UsageError(message)
        checkpoints = find_checkpoints(path)
    folder = TrainingFolder(path, facts, tuple(checkpoints))
    if not folder.is_done:
        check_room(path, model, settings)
    return folder


def check_room(out: Path, model: ModelFolder, settings: TrainSettings) -> None:
    """Raise UsageError if the disk has too little free space for the checkpoints and the result.

    A checkpoint has the model or the LoRA matrices, and AdamW's two states per trainable parameter, in float32. Before
    the oldest is deleted there is one more than `keep_checkpoints`. Checkpoints of an earlier start count as free
    space, since they are deleted as new ones are written.

    Raises:
        UsageError: too little free space.
    """
    parameters, trainable = count_parameters(read_config(model.load_path), settings)
    saved = parameters if settings.method == "full" else trainable
    needed = FLOAT32 * ((saved + 2 * trainable) * (settings.keep_checkpoints + 1) + saved)
    held = checkpoint_bytes(out)
    free = shutil.disk_usage(out).free
    if free + held < needed:
        there = f" ({held / GIB:.1f} GiB already there)" if held else ""
        message = (
            f"--out {out}: {settings.keep_checkpoints + 1} checkpoints and the result need {needed / GIB:.1f} GiB"
            f"{there}, and {free / GIB:.1f} GiB are free; free disk space or name another folder"
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
