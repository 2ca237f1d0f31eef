"""What of a network learns from text: all that text passes through, or LoRA matrices on its linear layers.

PEFT decides which layers `all-linear` are, and this module what has to be left out of them:

- parts that text never reaches, such as the vision tower of Gemma 3, which would get no gradients;
- all but the input projection of Mamba's mixers, whose kernels read the weights past any adapter.

transformers 5 keeps the experts of a layer in one tensor. PEFT puts matrices on such tensors too, without dropout: it
adds the update to the weights, where there is no input to drop from.
"""

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfinstruct_local.errors import UsageError

if TYPE_CHECKING:
    from torch.nn import Module

ALL_LINEAR = "all-linear"
# Notices of PEFT about what it settles itself: how Conv1D keeps its weights, and ranks of experts, which it looks for
# among modules though they are parameters.
_NOTICES = (r"fan_in_fan_out is set to", r"The following (rank|alpha)_pattern keys did not match")


def freeze_unreached(network: Any) -> None:
    """Freezes the parameters that text never reaches; a model of text alone has none."""
    for _, parameter in _unreached(network):
        parameter.requires_grad_(requires_grad=False)


def add_lora(network: Any, *, targets: str | Sequence[str], rank: int, alpha: int, dropout: float) -> Any:
    """Returns the network as a PeftModel with new LoRA matrices, all else frozen.

    Args:
        network: a causal language model of transformers.
        targets: `all-linear`, a regular expression over names of modules, or ends of such names.
        rank: of the matrices.
        alpha: scale of the update, over the rank.
        dropout: on the path of the matrices; must be 0 where they go onto experts (see `reaches_experts`).

    Raises:
        UsageError: `targets` name no module of the network, or one that PEFT can put no matrices on.
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
            f"lora_targets {names}: PEFT puts no matrices there ({str(error).splitlines()[0][:120]}); "
            f"take all-linear, or some of {', '.join(layers)}"
        )
        raise UsageError(message) from error


def adapted_layers(tuned: Any) -> tuple[str, ...]:
    """Names of the layers that got matrices, without their place in the network, in its order."""
    modules = [name.rsplit(".", 1)[-1] for name in tuned.base_model.targeted_module_names]
    experts = [".".join(name.split(".")[-2:]) for name in tuned.base_model.targeted_parameter_names]
    return tuple(dict.fromkeys([*modules, *experts]))


def reaches_experts(tuned: Any) -> bool:
    """Whether matrices went onto tensors of experts, where PEFT has no dropout."""
    return bool(tuned.base_model.targeted_parameter_names)


def _unreached(network: Any) -> "list[tuple[str, Any]]":
    """Names and parameters of what serves other inputs than text."""
    if network.config.get_text_config(decoder=True) is network.config:
        return []
    parts = (network.get_decoder(), network.get_input_embeddings(), network.get_output_embeddings())
    reached = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    return [(name, each) for name, each in network.named_parameters() if id(each) not in reached]


def _unfit_layers(network: Any) -> list[str]:
    """Names of the linear layers that are to have no matrices."""
    unfit = {name.rpartition(".")[0] for name, _ in _unreached(network)}
    for place, mixer in network.named_modules():
        # The names of Mamba's paper (Gu and Dao 2023, algorithm 2) for the decay and the skip of its state space.
        if hasattr(mixer, "A_log") and hasattr(mixer, "D"):
            unfit |= {f"{place}.{name}" for name, _ in mixer.named_children() if name != "in_proj"}
    return [name for name, module in network.named_modules() if _is_linear(module) and name in unfit]


def _is_linear(module: "Module") -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)
