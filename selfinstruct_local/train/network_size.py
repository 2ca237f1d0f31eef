"""The sizes of a network, read from its config: no weights are needed, nor memory for them.

It is built on PyTorch's meta device, where tensors have shapes and no bytes, so every count of parameters is that of
transformers and PEFT.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """Sizes of a network. All counts are of parameters.

    Attributes:
        layers: how many decoder layers.
        hidden: H, width of the residual stream.
        inner: I, width of the MLP.
        query: Q, heads times their width.
        key: K, the same of keys.
        heads: of the queries.
        vocabulary: V.
        parameters: all.
        trainable: all that learn.
        linear: in the base's linear layers without the head, which QLoRA makes 4-bit.
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
    parameters: int
    trainable: int
    linear: int
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
        WrongUseError: there is no config, or transformers does not know it, or it is of no LLaMA-like model.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        message = f"--model {folder}: no config.json in there; name the folder of a model"
        raise WrongUseError(message)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        message = f"--model {folder}: config.json cannot be used: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if not isinstance(getattr(config, name, None), int):
            message = f"--model {folder}: config.json has no {name}; plans are for LLaMA-like models"
            raise WrongUseError(message)
    return config


def count_parameters(config: "PretrainedConfig", settings: TrainSettings) -> tuple[int, int]:
    """Parameters in all and those that learn, counted by transformers and PEFT on the meta device.

    Raises:
        WrongUseError: the model has no decoder layers as LLaMA has them, or `lora_targets` name no module of it.
    """
    network = size_of(config, settings)
    return network.parameters, network.trainable


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


def size_of(config: "PretrainedConfig", settings: TrainSettings) -> NetworkSize:
    """The sizes of the network that `settings` train; see `count_parameters` for what is raised."""
    targets = settings.lora_targets
    kind: Any = type(config)
    return _build(
        config.to_json_string(use_diff=False),
        kind,
        settings.pad_vocab_to,
        settings.lora_r if settings.method != "full" else 0,
        targets if isinstance(targets, str) else tuple(targets),
    )


@lru_cache(maxsize=16)
def _build(
    config_json: str, config_class: Any, pad_vocab_to: int, lora_r: int, targets: str | tuple[str, ...]
) -> NetworkSize:
    """Builds the network on the meta device and counts; a 7B takes a second, hence the cache."""
    import torch
    from transformers import AutoModelForCausalLM

    config = config_class.from_dict(orjson.loads(config_json))
    factory: Any = AutoModelForCausalLM  # its methods have no types
    if pad_vocab_to:
        config.vocab_size = ceil(config.vocab_size / pad_vocab_to) * pad_vocab_to
    try:
        with torch.device("meta"):
            model = factory.from_config(config)
    except ValueError as error:
        message = f"--model: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not layers or not hasattr(layers[0], "mlp") or not hasattr(layers[0].mlp, "down_proj"):
        message = f"--model: {type(model).__name__} has no decoder layers as LLaMA has them; plans are for such models"
        raise WrongUseError(message)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    base_layer = _count(layers[0])
    linears = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    sizes = [_count(module) for module in linears]
    if lora_r:
        model = _with_lora(model, lora_r, targets)
        layers = model.get_base_model().model.layers
    with_matrices = [
        (name.rsplit(".", 1)[-1], module) for name, module in layers[0].named_modules() if hasattr(module, "lora_A")
    ]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads
    return NetworkSize(
        layers=len(layers),
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        query=heads * width,
        key=(getattr(config, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        vocabulary=config.vocab_size,
        parameters=_count(model),
        trainable=_count(model, trainable=True),
        linear=sum(sizes),
        layer=base_layer,
        layer_trainable=_count(layers[0], trainable=True),
        down_trainable=_count(layers[0].mlp.down_proj, trainable=True),
        largest_linear=max(sizes),
        head=head.numel(),
        head_trainable=head.numel() if head.requires_grad else 0,
        embedding_trainable=embedding.numel() if embedding.requires_grad and embedding is not head else 0,
        tied=embedding is head,
        norms_learn=layers[0].input_layernorm.weight.requires_grad,
        lora=tuple((_INPUT_OF.get(name, name), module.in_features) for name, module in with_matrices),
        lora_r=lora_r,
    )


def _with_lora(model: Any, rank: int, targets: str | tuple[str, ...]) -> Any:
    from peft import LoraConfig, get_peft_model

    modules = targets if isinstance(targets, str) else list(targets)
    try:
        return get_peft_model(model, LoraConfig(r=rank, target_modules=modules, task_type="CAUSAL_LM"))
    except ValueError as error:
        message = f"--lora-targets {modules}: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error


def _count(module: Any, *, trainable: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)
