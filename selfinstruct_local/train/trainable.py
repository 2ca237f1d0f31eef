"""Trainable parameters: all that text reaches, or LoRA matrices on the linear layers.

PEFT decides which layers `all-linear` selects; this module excludes:

- parts that text never reaches, such as the vision tower of Gemma 3, which would get no gradients;
- all layers of Mamba mixers except for the input projection: their kernels read the weights directly, bypassing
  adapters.

transformers 5 keeps the experts of a layer in one tensor. PEFT supports LoRA on such tensors, but without dropout: it
adds the update to the weights, so there is no input to apply dropout to.
"""

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfinstruct_local.errors import UsageError

if TYPE_CHECKING:
    from torch.nn import Module

ALL_LINEAR = "all-linear"
# PEFT warnings that need no action: it adapts to the weight layout of Conv1D, and looks for expert ranks among modules
# although experts are parameters.
_NOTICES = (r"fan_in_fan_out is set to", r"The following (rank|alpha)_pattern keys did not match")


def freeze_unreached(network: Any) -> None:
    """Freeze the parameters that text never reaches; a text-only model has none."""
    for _, parameter in _unreached(network):
        parameter.requires_grad_(requires_grad=False)


def add_lora(network: Any, *, targets: str | Sequence[str], rank: int, alpha: int, dropout: float) -> Any:
    """Return the network as a PeftModel with new LoRA matrices; all other parameters are frozen.

    Args:
        network: a causal language model of transformers.
        targets: `all-linear`, a regular expression over module names, or suffixes of module names.
        rank: LoRA rank.
        alpha: LoRA alpha; the update is scaled by alpha / rank.
        dropout: LoRA dropout; must be 0 if matrices are on experts (see `reaches_experts`).

    Raises:
        UsageError: `targets` match no module, or a module that PEFT does not support.
    """
    from peft import LoraConfig, get_peft_model

    every = isinstance(targets, str) and targets.lower() == ALL_LINEAR
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=(_unfit_layers(network) or None) if every else None,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            for notice in _NOTICES:
                warnings.filterwarnings("ignore", message=notice)
            return get_peft_model(network, lora)
    except (ValueError, re.error) as error:
        names = targets if isinstance(targets, str) else ", ".join(targets)
        layers = dict.fromkeys(name.rpartition(".")[2] for name, each in network.named_modules() if _is_linear(each))
        message = (
            f"lora_targets {names}: PEFT cannot adapt these modules ({str(error).splitlines()[0][:120]}); "
            f"use all-linear, or some of {', '.join(layers)}"
        )
        raise UsageError(message) from error


def adapted_layers(tuned: Any) -> tuple[str, ...]:
    """Return the names of the layers with LoRA matrices, without their path, in network order."""
    modules = [name.rsplit(".", 1)[-1] for name in tuned.base_model.targeted_module_names]
    experts = [".".join(name.split(".")[-2:]) for name in tuned.base_model.targeted_parameter_names]
    return tuple(dict.fromkeys([*modules, *experts]))


def reaches_experts(tuned: Any) -> bool:
    """Return whether LoRA matrices are on expert tensors, where PEFT has no dropout."""
    return bool(tuned.base_model.targeted_parameter_names)


def _unreached(network: Any) -> "list[tuple[str, Any]]":
    """Return (name, parameter) of the parameters that only process inputs other than text."""
    if network.config.get_text_config(decoder=True) is network.config:
        return []
    parts = (network.get_decoder(), network.get_input_embeddings(), network.get_output_embeddings())
    reached = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    return [(name, each) for name, each in network.named_parameters() if id(each) not in reached]


def _unfit_layers(network: Any) -> list[str]:
    """Return the names of the linear layers that must not get LoRA matrices."""
    unfit = {name.rpartition(".")[0] for name, _ in _unreached(network)}
    for place, mixer in network.named_modules():
        # Names in the Mamba paper (Gu and Dao 2023, algorithm 2) for the decay and skip parameters of the state space.
        if hasattr(mixer, "A_log") and hasattr(mixer, "D"):
            unfit |= {f"{place}.{name}" for name, _ in mixer.named_children() if name != "in_proj"}
    return [name for name, module in network.named_modules() if _is_linear(module) and name in unfit]


def _is_linear(module: "Module") -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)
