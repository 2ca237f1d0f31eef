"""Plans by arithmetic: counts, steps, what is divided, what fits; and what a layer keeps, against autograd itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config

from selfinstruct_local.errors import UsageError
from selfinstruct_local.train.memory import TokenLengths, _Activations, _Batch, _copies, _moments, _Precision
from selfinstruct_local.train.network_size import NetworkSize, count_parameters, llama_7b, read_config, size_of
from selfinstruct_local.train.plan import CARDS, Plan, describe, make_plan
from selfinstruct_local.train.settings import TrainSettings, load_train_settings

LLAMA_7B_PARAMETERS = 6_738_415_616
ALPACA_EXAMPLES = 52_002
TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _tiny(**changes: Any) -> LlamaConfig:
    return LlamaConfig.from_dict({**TINY, **changes})


def _plan(settings: TrainSettings, devices: int = 1, config: Any = None, examples: int = ALPACA_EXAMPLES) -> Plan:
    return make_plan(
        config or llama_7b(),
        settings,
        tokens_per_example=None,
        supervised_tokens=None,
        examples=examples,
        devices=devices,
    )


def _size(config: Any, settings: TrainSettings) -> NetworkSize:
    network = size_of(config, settings)
    assert isinstance(network, NetworkSize)
    return network


def _preset(name: str, **changes: Any) -> TrainSettings:
    return load_train_settings(name, None, changes)


# Counts


def test_llama_7b_has_as_many_parameters_as_published() -> None:
    settings = TrainSettings.model_validate({"method": "full"})
    assert count_parameters(llama_7b(), settings) == (LLAMA_7B_PARAMETERS, LLAMA_7B_PARAMETERS)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_lora_on_all_linear_layers_adds_r_rows_and_columns_to_each(method: str) -> None:
    settings = TrainSettings.model_validate({"method": method, "lora_r": 8})
    hidden, inner, layers = 4096, 11008, 32
    matrices = layers * 8 * (4 * (hidden + hidden) + 3 * (hidden + inner))
    assert count_parameters(llama_7b(), settings) == (LLAMA_7B_PARAMETERS + matrices, matrices)


def test_lora_targets_are_those_of_the_settings() -> None:
    settings = TrainSettings.model_validate({"lora_r": 4, "lora_targets": ["q_proj", "v_proj"]})
    assert count_parameters(_tiny(), settings)[1] == 2 * 4 * ((32 + 32) + (32 + 16))
    with pytest.raises(UsageError, match="lora_targets no_proj"):
        count_parameters(_tiny(), TrainSettings.model_validate({"lora_targets": ["no_proj"]}))


def test_padded_vocabulary_enlarges_embeddings_and_head() -> None:
    plain = count_parameters(_tiny(vocab_size=90), TrainSettings.model_validate({"method": "full"}))
    padded = count_parameters(
        _tiny(vocab_size=90), TrainSettings.model_validate({"method": "full", "pad_vocab_to": 64})
    )
    assert padded[0] - plain[0] == 2 * (128 - 90) * 32


def test_tied_embeddings_count_once() -> None:
    settings = TrainSettings.model_validate({"method": "full"})
    untied = count_parameters(_tiny(), settings)[0]
    assert untied - count_parameters(_tiny(tie_word_embeddings=True), settings)[0] == 96 * 32


# Steps


def test_alpaca_takes_as_many_steps_as_the_trainer_counts() -> None:
    plan = _plan(_preset("alpaca-7b"), devices=4)
    # 13,001 batches of 4, 3,251 of them on each of 4 devices, 8 a step.
    assert (plan.steps_per_epoch, plan.steps) == (407, 1221)
    assert plan.tokens == 3 * ALPACA_EXAMPLES * 512


@pytest.mark.parametrize(
    ("changes", "examples", "devices", "steps"),
    [
        ({"batch_size": 4}, 9, 1, 9),
        ({"batch_size": 4, "epochs": 1.5}, 9, 1, 5),
        ({"batch_size": 4, "epochs": 1}, 9, 2, 2),
        ({"batch_size": 4, "epochs": 1, "gradient_accumulation": 2}, 9, 1, 2),
        ({"batch_size": 4, "max_steps": 7}, 9, 1, 7),
        ({"batch_size": 2, "epochs": 1, "batching": "packed"}, 9, 1, 5),
    ],
)
def test_steps(changes: dict[str, Any], examples: int, devices: int, steps: int) -> None:
    settings = TrainSettings.model_validate(changes)
    assert _plan(settings, devices, _tiny(), examples).steps == steps


def test_packed_rows_and_tokens_are_of_the_lengths_given() -> None:
    settings = TrainSettings.model_validate({"batching": "packed", "max_length": 16, "batch_size": 1, "epochs": 2})
    lengths = [8, 8, 4, 10]
    plan = make_plan(_tiny(), settings, tokens_per_example=lengths, supervised_tokens=[4] * 4, examples=4, devices=1)
    assert (plan.steps_per_epoch, plan.steps, plan.tokens) == (2, 4, 60)


@pytest.mark.parametrize(
    ("batching", "batch"),
    [
        ("padding-free", _Batch(tokens=18, supervised=7, mask=18 * 18)),
        ("padded", _Batch(tokens=20, supervised=20, mask=20 * 10)),
        ("packed", _Batch(tokens=32, supervised=12, mask=32 * 32)),
    ],
)
def test_the_largest_batch_that_shuffling_can_bring(batching: str, batch: _Batch) -> None:
    settings = TrainSettings.model_validate({"batching": batching, "batch_size": 2, "max_length": 16})
    data = TokenLengths.of([8, 7, 10, 6], [2, 3, 4, 2], 4, settings)
    assert _Batch.of(data, settings) == batch


def test_wrong_numbers_are_refused() -> None:
    settings = TrainSettings()
    with pytest.raises(UsageError, match="no example is left"):
        _plan(settings, config=_tiny(), examples=0)
    with pytest.raises(ValueError, match="2 lengths"):
        make_plan(_tiny(), settings, tokens_per_example=[3, 4], supervised_tokens=None, examples=3, devices=1)
    with pytest.raises(UsageError, match="--global-batch-size"):
        _plan(_preset("alpaca-7b"), devices=5)


# Memory


def test_fsdp_divides_weights_gradients_and_optimizer() -> None:
    settings = TrainSettings.model_validate({"method": "full", "fsdp": True})
    data = TokenLengths.of(None, None, 64, settings)
    network = _size(llama_7b(), settings)
    one, four = ([*_moments(network, settings, data, devices, on_gpu=True)][-1] for devices in (1, 4))
    assert one.moment == four.moment == "at the optimizer's step"
    parameters = LLAMA_7B_PARAMETERS
    assert (one.weights, one.gradients, one.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)
    assert (four.weights, four.gradients, four.optimizer) == (parameters, parameters, 2 * parameters)


def test_fsdp_divides_gradients_while_passes_accumulate_too() -> None:
    # transformers' own sharding reduces after each pass.
    assert _plan(_preset("alpaca-7b"), devices=4).memory.gradients == 4 * LLAMA_7B_PARAMETERS // 4


def test_fsdp_divides_the_base_of_lora_and_not_its_matrices() -> None:
    settings = TrainSettings.model_validate({"method": "lora", "fsdp": True})
    plan = _plan(settings, devices=4)
    base = plan.parameters - plan.trainable
    assert plan.memory.weights == 2 * base // 4 + 4 * plan.trainable
    assert plan.memory.optimizer == 8 * plan.trainable


def test_what_is_trained_is_float32_and_a_frozen_base_is_not() -> None:
    full = _plan(TrainSettings.model_validate({"method": "full"})).memory
    assert (full.weights, full.optimizer) == (4 * LLAMA_7B_PARAMETERS, 8 * LLAMA_7B_PARAMETERS)
    matrices = 19_988_480
    lora = _plan(TrainSettings.model_validate({"method": "lora"})).memory
    assert (lora.weights, lora.optimizer) == (2 * LLAMA_7B_PARAMETERS + 4 * matrices, 8 * matrices)
    qlora = _plan(TrainSettings.model_validate({"method": "qlora"})).memory
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert qlora.weights == pytest.approx(0.515875 * linear + 4 * (LLAMA_7B_PARAMETERS - linear + matrices), rel=1e-6)


def test_without_fsdp_each_device_holds_everything() -> None:
    settings = TrainSettings()
    alone, beside = _plan(settings).memory, _plan(settings, devices=2).memory
    assert (beside.weights, beside.optimizer) == (alone.weights, alone.optimizer)
    assert beside.working > alone.working  # buckets of gradients


def test_accumulated_gradients_stand_at_the_loss() -> None:
    one, two = (
        _plan(TrainSettings.model_validate({"method": "lora", "gradient_accumulation": passes})) for passes in (1, 2)
    )
    assert (one.memory.gradients, two.memory.gradients) == (0, 4 * two.trainable)


# Autograd keeps what the plan says. One layer is what a model of three layers keeps more than one of two.

LENGTHS = (40, 56)
# (weights' type or None, settings): FSDP2's gathered weights are bf16, else those that learn are float32.
KEPT = [
    pytest.param(torch.float32, {"method": "full", "precision": "fp32"}, id="full-fp32"),
    pytest.param(torch.float32, {"method": "full", "precision": "bf16"}, id="full-autocast"),
    pytest.param(torch.bfloat16, {"method": "full", "precision": "bf16", "fsdp": True}, id="full-fsdp"),
    pytest.param(torch.float32, {"method": "lora", "precision": "fp32"}, id="lora-fp32"),
    pytest.param(torch.float32, {"method": "lora", "precision": "fp32", "lora_dropout": 0.0}, id="lora-no-dropout"),
    pytest.param(torch.bfloat16, {"method": "lora", "precision": "bf16"}, id="lora-bf16"),
    pytest.param(
        torch.float32,
        {"method": "lora", "precision": "fp32", "lora_dropout": 0.0, "lora_targets": ["q_proj", "up_proj"]},
        id="lora-two-targets",
    ),
]


@contextmanager
def _saved(model: Any) -> Iterator[dict[int, torch.Tensor]]:
    """Fills a dict with a tensor of each storage that autograd keeps, weights left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weights:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _kept_by(layers: int, dtype: torch.dtype, settings: TrainSettings) -> int:
    factory: Any = LlamaForCausalLM  # it has no types
    model = factory(_tiny(num_hidden_layers=layers)).to(dtype)
    if settings.method == "lora":
        lora = LoraConfig(
            r=settings.lora_r,
            lora_dropout=settings.lora_dropout,
            target_modules=settings.lora_targets,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora)
    model.train()
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    row = torch.randint(0, TINY["vocab_size"], (1, sum(LENGTHS)))
    half = settings.precision == "bf16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), _saved(model) as kept:
        logits = model(input_ids=row, position_ids=positions, use_cache=False).logits
        assert logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(("dtype", "changes"), KEPT)
def test_a_layer_keeps_what_is_planned(dtype: torch.dtype, changes: dict[str, Any]) -> None:
    settings = TrainSettings.model_validate({**changes, "batch_size": len(LENGTHS)})
    network = _size(_tiny(), settings)
    batch = _Batch.of(TokenLengths.of(LENGTHS, None, len(LENGTHS), settings), settings)
    precision = _Precision.of(settings, on_gpu=False)
    planned = _Activations.of(network, batch, settings, precision, on_gpu=False)
    copies, _ = _copies(network, settings, precision)
    assert _kept_by(3, dtype, settings) - _kept_by(2, dtype, settings) == planned.layer + copies


# What fits


def test_alpaca_fits_4_cards_of_80_gb_as_published_and_not_1() -> None:
    assert 80 in _plan(_preset("alpaca-7b"), devices=4).fits
    assert _plan(_preset("alpaca-7b")).fits == ()


def test_lora_7b_and_qlora_7b_fit_a_card_of_24_gb() -> None:
    lora, qlora = _plan(_preset("lora-7b")), _plan(_preset("qlora-7b"))
    assert lora.fits == qlora.fits == CARDS
    assert qlora.memory.total < lora.memory.total
    assert not lora.advice


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        (_preset("alpaca-7b"), 1),
        (_preset("alpaca-7b"), 4),
        (TrainSettings.model_validate({"method": "full", "batch_size": 16}), 1),
        (_preset("lora-7b", gradient_checkpointing=False, batch_size=32), 1),
    ],
)
def test_advice_leads_to_a_plan_that_fits(settings: TrainSettings, devices: int) -> None:
    plan = _plan(settings, devices)
    assert [advice.card for advice in plan.advice] == [card for card in CARDS if card not in plan.fits] != []
    for advice in plan.advice:
        advised = _plan(advice.settings, advice.devices)
        assert advised.memory == advice.memory
        assert advice.card in advised.fits
        # A step is over as many examples, unless there are more devices with a step of no set size.
        if settings.global_batch_size or advice.devices == devices:
            assert advised.steps == pytest.approx(plan.steps, rel=0.01)


def test_advice_that_cannot_be_followed_is_left_out() -> None:
    settings = TrainSettings.model_validate({"method": "full", "batch_size": 1, "lora_targets": ["no_proj"]})
    assert {advice.flags for advice in _plan(settings).advice} <= {f"--fsdp --nproc {count}" for count in (2, 4, 8)}
    # Nor advice to go on with a batch that no number of devices divides.
    odd = TrainSettings.model_validate({"method": "full", "batch_size": 1, "global_batch_size": 7})
    assert all(advice.devices == 1 for advice in _plan(odd).advice)


def test_advice_is_the_cheapest_first() -> None:
    settings = _preset("lora-7b", gradient_checkpointing=False)
    assert {advice.flags for advice in _plan(settings).advice} == {"--gradient-checkpointing"}
    full = TrainSettings.model_validate({"method": "full", "batch_size": 1})
    assert {advice.card: advice.flags for advice in _plan(full).advice} == {
        24: "--fsdp --nproc 8",
        40: "--fsdp --nproc 4",
        80: "--fsdp --nproc 2",
    }


# Display and folders


def test_the_lines_of_a_plan() -> None:
    lines = describe(_plan(_preset("lora-7b")))
    assert lines[0] == "parameters   6,758,404,096"
    assert lines[1] == "trainable    19,988,480 (0.30%)"
    assert lines[2] == "LoRA on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    assert any(line.startswith("  total ") and line.endswith(" GiB") for line in lines)
    assert any("24 GiB fits" in line for line in lines)
    assert describe(_plan(_preset("alpaca-7b")))[-1].startswith("to fit 80 GiB: --nproc 2 (")


def test_a_plan_for_a_cpu_names_no_cards() -> None:
    plan = make_plan(
        _tiny(),
        TrainSettings(),
        tokens_per_example=None,
        supervised_tokens=None,
        examples=8,
        devices=1,
        on_gpu=False,
    )
    assert (plan.fits, plan.advice) == ((), ())
    assert not any("80 GiB" in line for line in describe(plan))


def test_the_config_of_a_folder(tmp_path: Path) -> None:
    Qwen2Config.from_dict(TINY).save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert config.model_type == "qwen2"
    assert _plan(TrainSettings(), config=config, examples=8).trainable > 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no config.json"),
        ("{", "cannot be used"),
        ('{"model_type": "no such model"}', "cannot be used"),
    ],
)
def test_a_folder_that_will_not_do(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=told) as caught:
        read_config(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("model_type", ["bert", "pegasus_x", "bart", "t5"])
def test_a_model_that_is_no_causal_language_model_is_refused(tmp_path: Path, model_type: str) -> None:
    config = {"model_type": model_type, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 32}
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 32, "num_attention_heads": 4}))
    with pytest.raises(UsageError, match=f"{model_type} is not a causal language model") as caught:
        count_parameters(read_config(tmp_path), TrainSettings())
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("wrong", [{"num_attention_heads": 0}, {"hidden_size": "wide"}, {"hidden_act": "no_such"}])
def test_a_config_that_does_not_fit_its_class_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **TINY, **wrong}))
    with pytest.raises(UsageError, match=r"cannot (build|be used)") as caught:
        count_parameters(read_config(tmp_path), TrainSettings())
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
