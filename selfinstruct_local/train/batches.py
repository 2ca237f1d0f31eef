"""Collators for padded and padding-free batches, and packing.

In a padding-free row, the positions of each example start at 0 and each example attends only to itself: transformers
detects where positions restart and masks the other examples. The LM head is applied only to positions whose next token
is trainable, so neither padding nor prompts cost a row of logits. The losses equal those of padded batches up to
rounding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfinstruct_local.train.data import IGNORED, Example

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]


class PaddingFreeCollator:
    """Concatenates the examples of a batch.

    Returns, for T tokens of which K are trainable: `input_ids`, `position_ids` and `labels` of shape (1, T);
    `logits_to_keep`, shape (K,), the positions whose next token is trainable; `shift_labels`, shape (1, K), those next
    tokens. Requires `use_cache=False`: with a KV cache, transformers does not detect where positions restart.
    """

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        """Return the batch of `rows`; each has a list of examples under `examples`."""
        import torch

        input_ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        for row in rows:
            for example in row["examples"]:
                input_ids += example.input_ids
                positions += range(len(example.input_ids))
                # A first token has no label: the last token of the previous example must not predict it.
                labels += [IGNORED, *example.labels[1:]]
        keep = [index - 1 for index, label in enumerate(labels) if label != IGNORED]
        return {
            "input_ids": torch.tensor([input_ids]),
            "position_ids": torch.tensor([positions]),
            "labels": torch.tensor([labels]),
            "logits_to_keep": torch.tensor(keep),
            "shift_labels": torch.tensor([[labels[index + 1] for index in keep]]),
        }


class PaddedCollator:
    """Pads the examples of a batch on the right to the length of the longest.

    Returns `input_ids`, `attention_mask` and `labels` of shape (batch, longest). Padding is masked by length, never by
    token id: the padding token may be the end-of-sequence token, which is trainable.
    """

    def __init__(self, padding: int) -> None:
        """Set the id of the padding token; any id gives the same loss."""
        self._padding = padding

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        """Return the batch of `rows`; each has one example under `examples`."""
        import torch

        examples = [example for row in rows for example in row["examples"]]
        longest = max(len(example.input_ids) for example in examples)
        return {
            "input_ids": torch.tensor([_pad(each.input_ids, longest, self._padding) for each in examples]),
            "attention_mask": torch.tensor([_pad([1] * len(each.input_ids), longest, 0) for each in examples]),
            "labels": torch.tensor([_pad(each.labels, longest, IGNORED) for each in examples]),
        }


def _pad(values: list[int], length: int, filling: int) -> list[int]:
    return values + [filling] * (length - len(values))


def pack(examples: Sequence[Example], capacity: int) -> list[list[Example]]:
    """Return rows of at most `capacity` tokens, packed by TRL's best-fit decreasing without splitting examples.

    Args:
        examples: examples, none longer than `capacity`.
        capacity: tokens per row.
    """
    from datasets import Dataset
    from trl import pack_dataset

    # Only the placement of the examples is needed: each token is replaced by the number of its example.
    numbers = [[index] * len(example.input_ids) for index, example in enumerate(examples)]
    packed = pack_dataset(Dataset.from_dict({"input_ids": numbers}), capacity, strategy="bfd")
    rows = []
    for row, lengths in zip(packed["input_ids"], packed["seq_lengths"], strict=True):
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        rows.append([examples[row[start]] for start in starts])
    return rows
