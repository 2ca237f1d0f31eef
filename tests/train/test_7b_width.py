"""Steps on a LLaMA of 7B's exact width and heads, cut to two of its 32 decoder layers.

Weights, gradients and states of the full step take 10.7 GB in float32, and loading as much again for a moment: `make
soak` alone does it, on a machine that has the room.
"""

from importlib.resources import files
from pathlib import Path

import orjson
import pytest
import torch

from selfinstruct_local.doctor.hardware import read_memory
from selfinstruct_local.models import ModelFolder, find_model
from selfinstruct_local.train.data import Example, TrainingData
from selfinstruct_local.train.folder import open_folder
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.trainer import train
from tests.kernels.oracles import SOAK

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(not SOAK, reason="writes 2.7 GB of weights and takes 14 GB of memory: make soak"),
]
NEEDED = 14 << 30
LAYERS = 2


@pytest.fixture(scope="module")
def wide_model(tiny_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    free = read_memory()
    if free < NEEDED:
        pytest.skip(f"a model of 7B's width needs {NEEDED >> 30} GiB of free memory, and {free >> 30} are there")
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama-7b-two-layers")
    for path in tiny_model.path.iterdir():
        if path.name.startswith("tokenizer"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = orjson.loads((files("selfinstruct_local.train") / "llama_7b.json").read_bytes())
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config | {"num_hidden_layers": LAYERS})).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return find_model(str(folder))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_model_of_the_width_of_7b_takes_a_step(wide_model: ModelFolder, tmp_path: Path, method: str) -> None:
    config = orjson.loads((wide_model.path / "config.json").read_bytes())
    assert (config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]) == (4096, 11008, 32)
    # Token ids alone: the tokenizer at hand has more of them than LLaMA has.
    examples = [Example(list(range(3, 60 + n)), [-100] * 20 + list(range(23, 60 + n))) for n in range(4)]
    data = TrainingData(examples)
    settings = TrainSettings.model_validate(
        {"method": method, "max_steps": 2, "batch_size": 2, "learning_rate": 1e-4, "warmup_ratio": 0}
    )
    result = train(data, wide_model, open_folder(tmp_path, data, wide_model, settings), settings)
    assert result.finished
    (_, _, first), (_, _, second) = result.losses
    assert first == pytest.approx(torch.log(torch.tensor(32_000.0)).item(), abs=1), "as good as chance"
    assert second != first
