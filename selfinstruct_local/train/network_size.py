"""Parameter counts and layer sizes of a network, from its config; no weights are loaded.

The network is built on PyTorch's meta device, where tensors have shapes but no storage, so all parameter counts are
those of transformers and PEFT.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameter counts that are available for any network.

    Attributes:
        architecture: name of transformers' class.
        parameters: all parameters.
        trainable: trainable parameters.
        linear: parameters in the base model's linear layers except for the head; QLoRA quantises these to 4 bits.
        adapted: names of the layers with LoRA matrices, without their path in the network.
        adapts_experts: whether LoRA matrices are on expert tensors, where PEFT has no dropout.
    """

    architecture: str
    parameters: int
    trainable: int
    linear: int
    adapted: tuple[str, ...]
    adapts_experts: bool


@dataclass(frozen=True, slots=True)
class NetworkSize(Counts):
    """Sizes of a network with decoder layers like LLaMA's: attention, and an MLP with three projections.

    Attributes:
        layers: number of decoder layers.
        hidden: H, width of the residual stream.
        inner: I, inner width of the MLP.
        query: Q, query heads times head width.
        key: K, key heads times head width.
        heads: number of query heads.
        vocabulary: V, vocabulary size.
        layer, layer_trainable: parameters of one decoder layer, all and trainable.
        down_trainable: trainable parameters of its down projection.
        largest_linear: parameters of the largest linear layer except for the head.
        head, head_trainable: parameters of the output head, all and trainable; includes tied embeddings.
        embedding_trainable: trainable parameters of the input embeddings; 0 if they are tied.
        tied: whether head and input embeddings share their weights.
        norms_learn: whether the weights of the norms are trainable.
        lora: (input, width of the input) of each projection of a layer that has LoRA matrices.
        lora_r: LoRA rank.
    """

    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    heads: int
    vocabulary: int
    layer: int
    layer_trainable: int
    down_trainable: int
    largest_linear: int
    head: int
    head_trainable: int
    embedding_trainable: int
    tied: bool
    norms_learn: bool
    lora: tuple[tuple[str, int], ...]
    lora_r: int


def llama_7b() -> "PretrainedConfig":
    """Return the config of LLaMA-7B (Touvron et al. 2023), which ships with the package: plans need no download."""
    from transformers import LlamaConfig

    raw = (files("selfinstruct_local.train") / "llama_7b.json").read_bytes()
    return LlamaConfig(**orjson.loads(raw))


def read_config(folder: Path) -> "PretrainedConfig":
    """Return the config of a local model folder; code in the folder is never run.

    Raises:
        UsageError: the folder has no config.json, or transformers cannot use it.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        message = f"--model {folder}: no config.json; name a model folder"
        raise UsageError(message)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # invalid values raise errors of any kind
        message = f"--model {folder}: config.json cannot be used ({_first_line(error)}); copy the file again"
        raise UsageError(message) from error
    return config


def count_parameters(config: "PretrainedConfig", settings: TrainSettings) -> tuple[int, int]:
    """Return the numbers of all and of trainable parameters; raises as `size_of` does."""
    network = size_of(config, settings)
    return network.parameters, network.trainable


def size_of(config: "PretrainedConfig", settings: TrainSettings) -> Counts:
    """Return the parameter counts of the network to train, as transformers and PEFT build it on the meta device.

    Returns:
        A `NetworkSize`, which memory estimates need, if the decoder layers are like LLaMA's.

    Raises:
        UsageError: the model is not a causal language model, transformers cannot build it, or `lora_targets` match no
            layer.
    """
    _refuse_other_than_causal(config)
    targets = settings.lora_targets
    kind: Any = type(config)
    try:
        return _build(
            config.to_json_string(use_diff=False),
            kind,
            settings.pad_vocab_to,
            settings.lora_r if settings.method != "full" else 0,
            targets if isinstance(targets, str) else tuple(targets),
        )
    except UsageError:
        raise
    except Exception as error:  # an invalid config raises errors of any kind
        message = (
            f"--model {config.name_or_path}: transformers cannot build {config.model_type} from its config.json "
            f"({_first_line(error)}); copy the file again"
        )
        raise UsageError(message) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refuse_other_than_causal(config: "PretrainedConfig") -> None:
    """Raise UsageError for a bidirectional model: its input would include the response it has to predict."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if masked or config.is_encoder_decoder:
        message = f"--model {config.name_or_path}: {config.model_type} is not a causal language model; name one that is"
        raise UsageError(message)


def dropout_of(network: Counts, settings: TrainSettings) -> float:
    """Return the LoRA dropout; 0 with LoRA on experts: PEFT has no dropout there, and one rate for all matrices."""
    return 0.0 if network.adapts_experts else settings.lora_dropout


def describe_lora(network: Counts, settings: TrainSettings) -> str:
    """Return a line that names the layers with LoRA matrices; "" in full fine-tuning."""
    if not network.adapted:
        return ""
    told = f"LoRA on {', '.join(network.adapted)}"
    if dropout_of(network, settings) != settings.lora_dropout:
        told += f"; dropout 0 instead of {settings.lora_dropout}, which PEFT does not support on experts"
    return told


# The input tensor of each projection; some projections share one.
_INPUT_OF = {
    "q_proj": "attention input",
    "k_proj": "attention input",
    "v_proj": "attention input",
    "o_proj": "attention output",
    "gate_proj": "mlp input",
    "up_proj": "mlp input",
    "down_proj": "mlp product",
}


@lru_cache(maxsize=16)
def _build(
    config_json: str, config_class: Any, pad_vocab_to: int, lora_r: int, targets: str | tuple[str, ...]
) -> Counts:
    """Build the network on the meta device and return its counts; cached, since a 7B model takes a second."""
    import torch
    from transformers import AutoModelForCausalLM

    from selfinstruct_local.train.trainable import adapted_layers, add_lora, freeze_unreached, reaches_experts

    config = config_class.from_dict(orjson.loads(config_json))
    text = config.get_text_config(decoder=True)
    factory: Any = AutoModelForCausalLM  # its methods have no type annotations
    if pad_vocab_to:
        text.vocab_size = ceil(text.vocab_size / pad_vocab_to) * pad_vocab_to
    with torch.device("meta"):
        base = factory.from_config(config)
    freeze_unreached(base)
    head = base.get_output_embeddings()
    linears = [each for each in base.modules() if isinstance(each, torch.nn.Linear) and each is not head]
    linear = sum(_count(each) for each in linears)
    layers = _llama_layers(base, text)
    layer, largest = (_count(layers[0]), max(_count(each) for each in linears)) if layers else (0, 0)
    # PEFT adds the matrices to the base model in place.
    tuned = add_lora(base, targets=targets, rank=lora_r, alpha=lora_r, dropout=0.0) if lora_r else None
    counts = Counts(
        architecture=type(base).__name__,
        parameters=_count(base),
        trainable=_count(base, trainable=True),
        linear=linear,
        adapted=adapted_layers(tuned) if tuned else (),
        adapts_experts=bool(tuned and reaches_experts(tuned)),
    )
    if not layers:
        return counts
    weight, embedding = head.weight, base.get_input_embeddings().weight
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return NetworkSize(
        **{each.name: getattr(counts, each.name) for each in fields(counts)},
        layers=len(layers),
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        query=heads * width,
        key=(getattr(text, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        vocabulary=text.vocab_size,
        layer=layer,
        layer_trainable=_count(layers[0], trainable=True),
        down_trainable=_count(layers[0].mlp.down_proj, trainable=True),
        largest_linear=largest,
        head=weight.numel(),
        head_trainable=weight.numel() if weight.requires_grad else 0,
        embedding_trainable=embedding.numel() if embedding.requires_grad and embedding is not weight else 0,
        tied=embedding is weight,
        norms_learn=any(each.requires_grad for name, each in layers[0].named_parameters() if "norm" in name),
        lora=_lora_inputs(layers[0]),
        lora_r=lora_r,
    )


def _llama_layers(network: Any, text: "PretrainedConfig") -> Any:
    """Return the decoder layers if each has attention and an MLP with three projections, else None."""
    layers = getattr(network.get_decoder(), "layers", None)
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    if not layers or network.get_output_embeddings() is None:
        return None
    told = all(isinstance(getattr(text, name, None), int) for name in names)
    alike = all(hasattr(each, "self_attn") and hasattr(getattr(each, "mlp", None), "down_proj") for each in layers)
    return layers if told and alike else None


def _lora_inputs(layer: Any) -> tuple[tuple[str, int], ...]:
    named = [(name.rsplit(".", 1)[-1], each) for name, each in layer.named_modules() if hasattr(each, "lora_A")]
    return tuple((_INPUT_OF.get(name, name), each.in_features) for name, each in named)


def _count(module: Any, *, trainable: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)
