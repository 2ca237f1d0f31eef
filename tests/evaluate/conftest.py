"""What tests of the evaluation share: the tiny model of the training's tests, and an adapter over it."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from selfinstruct_local.models import ModelFolder
from tests.train.conftest import tiny_model

__all__ = ["make_adapter", "tiny_model"]


def make_adapter(model: ModelFolder, folder: Path) -> None:
    """Leaves there what a training in the chat template would leave."""
    torch.manual_seed(1)
    base: Any = AutoModelForCausalLM.from_pretrained(model.path)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, lora).save_pretrained(folder)
    facts = {
        "base_model": str(model.path),
        "base_model_fingerprint": model.fingerprint,
        "template": "chat",
        "settings": {"pad_vocab_to": 0},
    }
    (folder / "training.json").write_bytes(orjson.dumps(facts))


@pytest.fixture(scope="session")
def adapter(tiny_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA over the tiny model that is far from doing nothing."""
    folder = tmp_path_factory.mktemp("evaluated") / "adapter"
    make_adapter(tiny_model, folder)
    return folder
