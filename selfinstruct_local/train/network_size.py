"""The sizes of a network, read from its config: no weights are needed, nor memory for them.

It is built on PyTorch's meta device, where tensors have shapes and no bytes, so every count of parameters is that of
transformers and PEFT.
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
    """What can be counted of any network. All counts are of parameters.

    Attributes:
        architecture: name of transformers' class.
        parameters: all.
        trainable: all that learn.
        linear: in the base's linear layers without the head, which QLoRA makes 4-bit.
        adapted: names of the layers with LoRA matrices, without their place in the network.
        adapts_experts: LoRA matrices are on tensors of experts, where PEFT has no dropout.
    """

    architecture: str
    parameters: int
    trainable: int
    linear: int
    adapted: tuple[str, ...]
    adapts_experts: bool


@dataclass(frozen=True, slots=True)
class NetworkSize(Counts):
    """Counts and sizes of a network whose decoder layers are like LLaMA's: attention, and an MLP of three projections.

    Attributes:
        layers: how many decoder layers.
        hidden: H, width of the residual stream.
        inner: I, width of the MLP.
        query: Q, heads times their width.
        key: K, the same of keys.
        heads: of the queries.
        vocabulary: V.
        layer, layer_trainable: of one decoder layer.
        down_trainable: of its last projection.
        largest_linear: of the layer's projections.
        head, head_trainable: of the output head; tied embeddings count here.
        embedding_trainable: of the input embeddings; 0 where they are tied.
        tied: the head's weights are the embeddings'.
        norms_learn: norms learn their weights.
        lora: (input, width of the input) of each projection of a layer that has LoRA matrices.
        lora_r: their rank.
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
    """The config of LLaMA-7B (Touvron et al. 2023), which is shipped: plans need no download."""
    from transformers import LlamaConfig

    raw = (files("selfinstruct_local.train") / "llama_7b.json").read_bytes()
    return LlamaConfig(**orjson.loads(raw))


def read_config(folder: Path) -> "PretrainedConfig":
    """The config of a local model folder; code in the folder is never run.

    Raises:
        UsageError: there is no config, or transformers cannot use it.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        message = f"--model {folder}: no config.json in there; name the folder of a model"
        raise UsageError(message)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # values that do not fit end in errors of any kind
        message = f"--model {folder}: config.json cannot be used: {_first_line(error)}"
        raise UsageError(message) from error
    return config


def count_parameters(config: "PretrainedConfig", settings: TrainSettings) -> tuple[int, int]:
    """Parameters in all and those that learn; see `size_of` for what is raised."""
    network = size_of(config, settings)
    return network.parameters, network.trainable


def size_of(config: "PretrainedConfig", settings: TrainSettings) -> Counts:
    """Counts of the network that `settings` train, as transformers and PEFT build it on the meta device.

    Returns:
        A `NetworkSize` if the decoder layers are those of LLaMA, from which memory can be planned.

    Raises:
        UsageError: it is no causal language model, transformers cannot build it, or `lora_targets` name no layer.
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
    except Exception as error:  # a config that does not fit its class ends in errors of any kind
        message = (
            f"--model {config.name_or_path}: transformers cannot build {config.model_type} from its config.json "
            f"({_first_line(error)}); copy the file again"
        )
        raise UsageError(message) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refuse_other_than_causal(config: "PretrainedConfig") -> None:
    """Refuses what reads in both directions: it would see the answer that it is to learn."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if masked or config.is_encoder_decoder:
        message = f"--model {config.name_or_path}: {config.model_type} is no causal language model; take one that is"
        raise UsageError(message)


def dropout_of(network: Counts, settings: TrainSettings) -> float:
    """The dropout that its LoRA matrices have: PEFT has none for tensors of experts, and one rate for all matrices."""
    return 0.0 if network.adapts_experts else settings.lora_dropout


def describe_lora(network: Counts, settings: TrainSettings) -> str:
    """Which layers get LoRA matrices, as one line; empty where all learns."""
    if not network.adapted:
        return ""
    told = f"LoRA on {', '.join(network.adapted)}"
    if dropout_of(network, settings) != settings.lora_dropout:
        told += f"; no dropout instead of {settings.lora_dropout}, which experts cannot have"
    return told


# Projections that read one and the same tensor.
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
    """Builds the network on the meta device and counts; a 7B takes a second, hence the cache."""
    import torch
    from transformers import AutoModelForCausalLM

    from selfinstruct_local.train.trainable import adapted_layers, add_lora, freeze_unreached, reaches_experts

    config = config_class.from_dict(orjson.loads(config_json))
    text = config.get_text_config(decoder=True)
    factory: Any = AutoModelForCausalLM  # its methods have no types
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
    # Matrices are put into the layers of the base itself.
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
    """The decoder layers, if each has attention and an MLP of three projections; None for any other build."""
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
