"""Whether a model keeps the examples apart that share a row.

transformers builds the attention mask of a row from the positions that start at 0 again. Not every architecture takes
it: OPT, BLOOM and Falcon mask by other means, and the states of LFM2, Mamba and Qwen3-Next cross the border between
examples. Two short forward passes tell, of architectures to come too.
"""

from typing import Any

EXAMPLE_TOKENS = 16  # more than any convolution over the last tokens reaches back
# Of the logits' standard deviation. Where examples are kept apart, the difference is 0; in the half precisions, experts
# that get other tokens may round otherwise.
_FLOAT32_TOLERANCE = 1e-5
_HALF_TOLERANCE = 1e-2


def separates_examples(network: Any) -> bool:
    """Return whether the logits of an example are the same whatever example precedes it in its row.

    Args:
        network: a causal language model of transformers, with an adapter or without.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = int(network.get_input_embeddings().weight.shape[0])
    before, other, example = torch.randint(rows, (3, EXAMPLE_TOKENS), generator=generator)
    trains = network.training
    network.eval()
    try:
        after_one, after_other = (_second_logits(network, torch.cat([first, example])) for first in (before, other))
    except TypeError:  # its forward takes no positions
        return False
    finally:
        network.train(trains)
        _reshard(network)
    if after_one.shape[0] != EXAMPLE_TOKENS:  # it passes over which logits are asked for
        return False
    tolerance = _FLOAT32_TOLERANCE if after_one.dtype == torch.float32 else _HALF_TOLERANCE
    return bool((after_one - after_other).abs().max() <= tolerance * after_one.float().std())


def _reshard(network: Any) -> None:
    """Divide again what a forward pass has gathered of a sharded model, before an optimizer takes it for whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _second_logits(network: Any, row: Any) -> Any:
    """The logits of the second example, shape (EXAMPLE_TOKENS, vocabulary)."""
    import torch

    positions = torch.arange(EXAMPLE_TOKENS).repeat(2)
    keep = torch.arange(EXAMPLE_TOKENS, 2 * EXAMPLE_TOKENS)
    with torch.no_grad():
        output = network(
            input_ids=row[None].to(network.device),
            position_ids=positions[None].to(network.device),
            logits_to_keep=keep,
            use_cache=False,  # with a cache, transformers does not look where positions start anew
        )
    return output.logits[0]
