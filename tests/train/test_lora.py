"""Trains the embedded model for real, for two steps."""

import csv
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.chat import Chat, check_adapter
from selfinstruct_local.config import TrainSettings
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.tasks import Task
from selfinstruct_local.train.lora import train_lora

pytestmark = pytest.mark.training
TASKS = [
    Task.single("Name the capital of France.", "", "Paris"),
    Task.single("Reverse the word.", "abc", "cba"),
]


def test_two_steps_and_an_answer(tmp_path: Path, embedded_model: ModelFolder) -> None:
    settings = TrainSettings(max_steps=2, batch_size=2, learning_rate=1e-3, warmup_ratio=0, lora_dropout=0)
    result = train_lora(TASKS, embedded_model, tmp_path, settings)
    assert [step for step, _, _ in result.losses] == [1, 2]
    # Both steps see the same two examples, so the fall is learning.
    assert result.losses[1][2] < result.losses[0][2]
    assert len(result.epoch_losses) == 2

    assert (tmp_path / "adapter_model.safetensors").is_file()
    with (tmp_path / "loss.csv").open(newline="") as stream:
        assert [float(row["loss"]) for row in csv.DictReader(stream)] == [loss for *_, loss in result.losses]
    manifest = orjson.loads((tmp_path / "training.json").read_bytes())
    assert (manifest["examples"], manifest["template"]) == (2, "alpaca")
    assert manifest["base_model_fingerprint"] == embedded_model.fingerprint

    assert check_adapter(tmp_path) == manifest
    chat = Chat(embedded_model, tmp_path)
    assert chat.template == "alpaca"
    assert chat.answer("Name the capital of France.", max_tokens=4)


def test_nothing_to_train_on_is_said(tmp_path: Path, embedded_model: ModelFolder) -> None:
    with pytest.raises(WrongUseError, match=r"no example is left to train on \(1 empty output\)"):
        train_lora([Task.single("Say nothing.", "", "")], embedded_model, tmp_path, TrainSettings())
