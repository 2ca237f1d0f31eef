"""Batches of examples: padded, or several examples in one row without padding.

In a row without padding each example has positions of its own from 0 and attends to itself alone: transformers sees
where positions start anew and masks the rest. The head is then put over the supervised positions only, so neither
padding nor prompts cost a row of logits. The losses are those of padded batches, up to rounding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from selfinstruct_local.train.data import IGNORED, Example

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]


class PaddingFreeCollator:
    """Puts the examples of a batch one behind the other.

    Gives for T tokens, K of them supervised: `input_ids`, `position_ids` and `labels` of shape (1, T);
    `logits_to_keep`, shape (K,), the positions whose next token is supervised; `shift_labels`, shape (1, K), these next
    tokens. Not with a cache of keys: with one, transformers does not look where positions start anew.
    """

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        """The batch of `rows`, each with `examples`, a list of examples that belong together."""
        import torch

        input_ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        for row in rows:
            for example in row["examples"]:
                input_ids += example.input_ids
                positions += range(len(example.input_ids))
                # Nothing predicts a first token; least of all the last one of the example before.
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
    """Pads the examples of a batch on the right to the longest.

    Gives `input_ids`, `attention_mask` and `labels` of shape (batch, longest). What is padding is told by the length,
    never by the token: the padding token may be the end-of-sequence token, which is learnt.
    """

    def __init__(self, padding: int) -> None:
        """Takes the id of the token to pad with; which one it is makes no difference."""
        self._padding = padding

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        """The batch of `rows`, each with one example in `examples`."""
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
    """Fills rows of at most `capacity` tokens, each example whole, by TRL's best-fit decreasing.

    Args:
        examples: none longer than `capacity`.
        capacity: of a row, in tokens.
    """
    from datasets import Dataset
    from trl import pack_dataset

    # Only where the examples go is asked: each is its own number, as often as it has tokens.
    numbers = [[index] * len(example.input_ids) for index, example in enumerate(examples)]
    packed = pack_dataset(Dataset.from_dict({"input_ids": numbers}), capacity, strategy="bfd")
    rows = []
    for row, lengths in zip(packed["input_ids"], packed["seq_lengths"], strict=True):
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        rows.append([examples[row[start]] for start in starts])
    return rows
