"""What learns in models of many families: layers with LoRA matrices, frozen parts, counts, plans without sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from selfinstruct_local.errors import UsageError
from selfinstruct_local.train.memory import FLOAT32
from selfinstruct_local.train.network_size import Counts, NetworkSize, dropout_of, size_of
from selfinstruct_local.train.plan import Plan, describe, make_plan
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.trainable import add_lora, freeze_unreached
from tests.train.tiny_models import FAMILIES

LORA = TrainSettings()
FULL = TrainSettings.model_validate({"method": "full"})
LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EXPERTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate.weight", "experts.gate_up_proj", "experts.down_proj")
GPT_NEOX_LAYERS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
ADAPTED = {
    "mixtral": EXPERTS,
    "qwen3-moe": EXPERTS,
    "gemma3": LLAMA_LAYERS,
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "lfm2": ("in_proj", "out_proj", "w1", "w2", "w3", "q_proj", "k_proj", "v_proj"),
    "gpt-neox": GPT_NEOX_LAYERS,
    "bloom": GPT_NEOX_LAYERS,
    "falcon": GPT_NEOX_LAYERS,
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    "mamba": ("in_proj",),
}
UNSIZED = {"mixtral", "qwen3-moe", "lfm2", "gpt-neox", "gpt2", "opt", "bloom", "starcoder2", "mamba", "falcon"}
every_family = pytest.mark.parametrize("family", FAMILIES)


def _config(family: str) -> Any:
    return getattr(transformers, FAMILIES[family].config)(**FAMILIES[family].sizes)


def _network(family: str) -> Any:
    factory: Any = transformers.AutoModelForCausalLM  # without types
    with torch.device("meta"):
        return factory.from_config(_config(family))


def _plan(config: Any, settings: TrainSettings, *, on_gpu: bool = True) -> Plan:
    return make_plan(
        config,
        settings,
        tokens_per_example=None,
        supervised_tokens=None,
        examples=64,
        devices=1,
        on_gpu=on_gpu,
    )


@every_family
def test_all_linear_means_layers_that_the_family_has(family: str) -> None:
    assert sorted(size_of(_config(family), LORA).adapted) == sorted(ADAPTED.get(family, LLAMA_LAYERS))


@every_family
def test_every_weight_that_learns_is_reached_by_text(family: str) -> None:
    """A step on text gives a gradient to each, else several processes would wait for the missing ones."""
    torch.manual_seed(0)
    factory: Any = transformers.AutoModelForCausalLM
    for settings in (LORA, FULL):
        network = factory.from_config(_config(family))
        counts = size_of(_config(family), settings)
        if settings.method == "full":
            freeze_unreached(network)
        else:
            network = add_lora(network, targets="all-linear", rank=settings.lora_r, alpha=16, dropout=0.0)
        learning = {name: each for name, each in network.named_parameters() if each.requires_grad}
        assert sum(each.numel() for each in learning.values()) == counts.trainable
        assert sum(each.numel() for each in network.parameters()) == counts.parameters
        network.train()
        network(input_ids=torch.arange(3, 67)[None], labels=torch.arange(3, 67)[None]).loss.backward()
        assert [name for name, each in learning.items() if each.grad is None] == []


def test_a_vision_tower_is_left_alone() -> None:
    frozen = _network("gemma3")
    freeze_unreached(frozen)
    learning = {name.split(".")[1] for name, each in frozen.named_parameters() if each.requires_grad}
    assert learning == {"language_model"}
    text = size_of(_config("gemma3-text"), FULL)
    assert size_of(_config("gemma3"), FULL).trainable == text.trainable
    assert size_of(_config("gemma3"), FULL).parameters > text.parameters


def test_experts_have_no_dropout_and_that_is_said() -> None:
    for family in FAMILIES:
        counts = size_of(_config(family), LORA)
        assert (dropout_of(counts, LORA) == 0.0) == (family in {"mixtral", "qwen3-moe"})
    attention = TrainSettings.model_validate({"lora_targets": ["q_proj", "v_proj"]})
    assert dropout_of(size_of(_config("mixtral"), attention), attention) == attention.lora_dropout
    told = [line for line in describe(_plan(_config("mixtral"), LORA)) if line.startswith("LoRA on")]
    assert len(told) == 1
    assert "dropout 0 instead of 0.05" in told[0]
    assert "dropout" not in _plan(_config("llama"), LORA).lora


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["ln_1"], ["h"], [], ".*q_proj", "(", ""])
def test_layers_that_can_have_no_matrices_are_named_with_those_that_can(targets: str | list[str]) -> None:
    wrong = TrainSettings.model_validate({"lora_targets": targets})
    with pytest.raises(UsageError, match=r"^lora_targets .* some of c_attn, c_proj, c_fc, lm_head$"):
        size_of(_config("gpt2"), wrong)


@every_family
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_plan_is_made_or_said_to_be_missing_in_one_line(family: str, method: str) -> None:
    settings = TrainSettings.model_validate({"method": method})
    counts, plan = size_of(_config(family), settings), _plan(_config(family), settings)
    assert plan.unsized == (counts.architecture if family in UNSIZED else "")
    assert isinstance(counts, NetworkSize) != (family in UNSIZED)
    lines = describe(plan)
    missing = [line for line in lines if line.startswith("memory") and "no plan" in line]
    assert len(missing) == (1 if family in UNSIZED else 0)
    assert any(line.startswith("  activations") for line in lines) != (family in UNSIZED)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_known_of_any_network_is_weights_gradients_and_states(method: str) -> None:
    settings = TrainSettings.model_validate({"method": method, "precision": "fp32"})
    counts = size_of(_config("mixtral"), settings)
    memory = _plan(_config("mixtral"), settings, on_gpu=False).memory
    assert type(counts) is Counts
    assert memory.total == FLOAT32 * (counts.parameters + 3 * counts.trainable)


def test_a_padded_vocabulary_of_a_nested_config_is_counted() -> None:
    padded = TrainSettings.model_validate({"method": "full", "pad_vocab_to": 1000})
    network = _network("gemma3")
    before = sum(each.numel() for each in network.parameters())
    assert size_of(_config("gemma3"), padded).parameters == before + (1000 - 512) * 32


def test_a_family_is_made_the_same_way_twice(tmp_path: Path) -> None:
    from tests.train.tiny_models import make_family

    one, two = make_family("gpt2", tmp_path / "one"), make_family("gpt2", tmp_path / "two")
    names = sorted(each.name for each in one.iterdir())
    assert names == sorted(each.name for each in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
