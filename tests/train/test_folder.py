"""Whether a training may go on in a folder, without one being trained."""

import shutil
from pathlib import Path

import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder, find_model
from selfinstruct_local.train.data import Example, TrainingData
from selfinstruct_local.train.folder import open_folder
from selfinstruct_local.train.settings import TrainSettings

DATA = TrainingData([Example([1, 2], [1, 2])])


@pytest.fixture
def model(tiny_model: ModelFolder, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model.path, tmp_path / "model")


def begin(out: Path, model: Path) -> None:
    out.mkdir(exist_ok=True)
    open_folder(out, DATA, find_model(str(model)), TrainSettings()).note_begin()


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json"])
def test_a_training_is_not_resumed_on_another_base(model: Path, tmp_path: Path, name: str) -> None:
    """Fault 46: the examples are the same, and what is saved with the weights would not be."""
    begin(tmp_path / "out", model)
    before = (model / name).read_bytes()
    (model / name).write_bytes(before + b" ")
    with pytest.raises(UsageError, match=rf"differs in base_model \({name}\); name another folder"):
        begin(tmp_path / "out", model)
    (model / name).write_bytes(before)
    begin(tmp_path / "out", model)
