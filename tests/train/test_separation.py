"""Examples that share a row: models that keep them apart are known from those that do not, which get padded batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from selfinstruct_local.evaluate.evaluated_models import find_evaluated_models
from selfinstruct_local.evaluate.losses import measure_losses
from selfinstruct_local.models import find_model
from selfinstruct_local.train.data import IGNORED, Example, TrainingData
from selfinstruct_local.train.folder import open_folder
from selfinstruct_local.train.separation import separates_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.trainer import train
from tests.chat_families import make_tokenizer, sentencepiece_like

pytestmark = pytest.mark.training
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 400}
HEADS = {**SIZE, "num_attention_heads": 4, "max_position_embeddings": 512}
GROUPED = {**HEADS, "intermediate_size": 64, "num_key_value_heads": 2}
EXPERTS = {**GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 32,
}
KEPT_APART: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen3_moe": EXPERTS,
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": 400},
}
MIXED: dict[str, dict[str, Any]] = {
    "opt": {**HEADS, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 400},
    "falcon": {**SIZE, "num_attention_heads": 4},
    "mamba": SIZE,
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {**EXPERTS, **LINEAR},
}


def make_network(kind: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    make: Any = AutoModelForCausalLM.from_config  # without types
    return make(AutoConfig.for_model(kind, **config))


def write_model(kind: str, config: dict[str, Any], folder: Path) -> Path:
    backend = sentencepiece_like(["<unk>", "<s>", "</s>"])
    make_tokenizer(backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    make_network(kind, {**config, "vocab_size": 1000, "bos_token_id": 1, "eos_token_id": 2}).save_pretrained(folder)
    return folder


def draw_examples(count: int) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    examples = []
    for number in range(count):
        ids = torch.randint(10, 300, (12 + number % 5,), generator=generator).tolist()
        examples.append(Example(ids, [IGNORED] * 5 + ids[5:]))
    return examples


@pytest.mark.parametrize("kind", KEPT_APART)
def test_examples_that_are_kept_apart(kind: str) -> None:
    network = make_network(kind, KEPT_APART[kind]).train()
    assert separates_examples(network)
    assert network.training
    assert separates_examples(network.to(torch.bfloat16))


@pytest.mark.parametrize("kind", MIXED)
def test_examples_that_see_each_other(kind: str) -> None:
    assert not separates_examples(make_network(kind, MIXED[kind]).eval())


@pytest.mark.parametrize("kind", ["opt", "mamba", "lfm2", "llama"])
def test_the_held_out_loss_is_that_of_each_example_alone(kind: str, tmp_path: Path) -> None:
    folder = write_model(kind, {**MIXED, **KEPT_APART}[kind], tmp_path)
    (evaluated,) = find_evaluated_models([str(folder)], template="alpaca")
    examples = draw_examples(6)
    found = [each.nats for batch in measure_losses(evaluated, examples, lambda: True) for each in batch]
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    network.eval()
    with torch.no_grad():
        alone = [
            float(network(input_ids=torch.tensor([each.input_ids]), labels=torch.tensor([each.labels])).loss)
            for each in examples
        ]
    assert found == pytest.approx(
        [loss * each.supervised for loss, each in zip(alone, examples, strict=True)], rel=1e-5
    )


@pytest.mark.parametrize("batching", ["padding-free", "packed"])
def test_a_training_pads_where_examples_would_see_each_other(batching: str, tmp_path: Path) -> None:
    model = find_model(str(write_model("opt", MIXED["opt"], tmp_path / "model")))
    losses: dict[str, list[float]] = {}
    told: list[str] = []
    for asked in ("padded", batching):
        rows = {"batch_size": 4} if asked != "packed" else {"batch_size": 1, "max_length": 64}
        settings = TrainSettings(method="full", batching=asked, learning_rate=1e-3, max_steps=2, **rows)
        data = TrainingData(draw_examples(8))
        out = tmp_path / asked
        out.mkdir()
        result = train(data, model, open_folder(out, data, model, settings), settings, tell=told.append)
        losses[asked] = [loss for *_, loss in result.losses]
    (line,) = told
    assert f"padded, not {batching}: " in line
    assert "'opt'" in line
    if batching == "padding-free":
        assert losses[batching] == pytest.approx(losses["padded"], abs=1e-6)
