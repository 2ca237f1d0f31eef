"""Detection of models in which examples of the same row influence each other.

transformers builds the attention mask of a row from where positions restart at 0. Some architectures ignore it: OPT,
BLOOM and Falcon mask in another way, and the states of LFM2, Mamba and Qwen3-Next cross the boundary between examples.
Two short forward passes detect this for any architecture, including future ones.
"""

from typing import Any

EXAMPLE_TOKENS = 16  # longer than the window of any convolution over tokens
# Fractions of the logits' standard deviation. The difference is 0 if examples are separate; in half precision, experts
# that process other tokens may round differently.
_FLOAT32_TOLERANCE = 1e-5
_HALF_TOLERANCE = 1e-2


def separates_examples(network: Any) -> bool:
    """Return whether the logits of an example are independent of the example before it in the row.

    Args:
        network: a causal language model of transformers, with or without an adapter.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = int(network.get_input_embeddings().weight.shape[0])
    before, other, example = torch.randint(rows, (3, EXAMPLE_TOKENS), generator=generator)
    trains = network.training
    network.eval()
    try:
        after_one, after_other = (_second_logits(network, torch.cat([first, example])) for first in (before, other))
    except TypeError:  # its forward does not accept position_ids
        return False
    finally:
        network.train(trains)
        _reshard(network)
    if after_one.shape[0] != EXAMPLE_TOKENS:  # it ignores logits_to_keep
        return False
    tolerance = _FLOAT32_TOLERANCE if after_one.dtype == torch.float32 else _HALF_TOLERANCE
    return bool((after_one - after_other).abs().max() <= tolerance * after_one.float().std())


def _reshard(network: Any) -> None:
    """Reshard the weights that a forward pass gathered, so that the optimizer gets the shards."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _second_logits(network: Any, row: Any) -> Any:
    """Return the logits of the second example in `row`, shape (EXAMPLE_TOKENS, vocabulary)."""
    import torch

    positions = torch.arange(EXAMPLE_TOKENS).repeat(2)
    keep = torch.arange(EXAMPLE_TOKENS, 2 * EXAMPLE_TOKENS)
    with torch.no_grad():
        output = network(
            input_ids=row[None].to(network.device),
            position_ids=positions[None].to(network.device),
            logits_to_keep=keep,
            use_cache=False,  # with a KV cache, transformers does not detect where positions restart
        )
    return output.logits[0]
