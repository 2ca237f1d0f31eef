"""Audit of the training data before the first step: counts, lengths, and samples with the trainable tokens marked.

Everything is counted on the token ids and labels that the model will see, not on the texts they came from.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.vocabulary import check_training_tokens
from selfinstruct_local.templates.alpaca import TemplateName
from selfinstruct_local.train.data import IGNORED, Example, TrainingData, answer_end, build_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import Dropped, TrainingSample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BINS = 8
SHOWN = 3
_BAR = 30


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts over the training data.

    Attributes:
        samples: samples read.
        examples: training examples.
        held_out: examples held out for the validation loss.
        dropped: number of dropped samples by reason.
        truncated: examples with a truncated response.
        unsupervised: examples without trainable tokens.
        endless: examples whose last trainable token is not the end token of a response.
        merged: examples in which the first token of a response begins inside its prompt.
        endings: number of responses that end with control-like text, by that text.
        tokens: tokens of all training examples.
        supervised: trainable tokens of all training examples.
        histogram: (longest length in tokens, number of examples) for each of `BINS` bins of equal width.
        shown: examples as text, with trainable tokens between ⟦ and ⟧.
    """

    samples: int
    examples: int
    held_out: int
    dropped: dict[str, int]
    truncated: int
    unsupervised: int
    endless: int
    merged: int
    endings: dict[str, int]
    tokens: int
    supervised: int
    histogram: tuple[tuple[int, int], ...]
    shown: tuple[str, ...]

    @property
    def lost(self) -> float:
        """Fraction of the samples that were dropped."""
        return sum(self.dropped.values()) / self.samples if self.samples else 0.0

    def check(self, settings: TrainSettings) -> None:
        """Raise UsageError if training on this data would be a waste.

        Raises:
            UsageError: no example is left, too many samples were dropped, or an example has no trainable tokens or
                no trainable end token.
        """
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        if not self.examples:
            message = f"--data: no example is left to train on ({reasons or 'no tasks'}); see --max-length"
            raise UsageError(message)
        if self.lost > settings.max_dropped:
            message = (
                f"--data: {self.lost:.0%} of {self.samples:,} samples were dropped ({reasons}); raise --max-length, "
                f"use --overlong truncate, or allow it with --max-dropped {self.lost + 0.005:.2f}"
            )
            raise UsageError(message)
        if self.unsupervised or self.endless:
            message = (
                f"--data: {self.unsupervised} examples have no trainable tokens and {self.endless} have no trainable "
                "end token"
            )
            raise UsageError(message)

    def describe(self) -> list[str]:
        """Return the counts as lines for the terminal."""
        lines = [f"samples {self.samples:,}: {self.examples:,} for training, {self.held_out:,} held out"]
        lines += [f"  dropped {count:,}: {reason}" for reason, count in self.dropped.items()]
        lines.append(
            f"truncated {self.truncated:,} ({self.truncated / max(1, self.examples):.1%}); "
            f"no trainable tokens {self.unsupervised:,}; no trainable end token {self.endless:,}"
        )
        if self.merged:
            lines.append(
                f"responses whose first token begins inside the prompt: {self.merged:,}; the model cannot generate "
                "such a token after the prompt; remove the spaces or punctuation before these responses"
            )
        if self.endings:
            each = ", ".join(f"{text!r} {count:,}" for text, count in self.endings.items())
            lines.append(f"responses that end with control-like text, trained as plain text: {each}; remove it")
        lines.append(
            f"tokens {self.tokens:,}, {self.tokens / max(1, self.examples):.0f} per example; trainable "
            f"{self.supervised:,} ({self.supervised / max(1, self.tokens):.0%})"
        )
        most = max((count for _, count in self.histogram), default=0)
        lines += [
            f"  up to {length:5,} tokens {count:8,} {'▇' * round(_BAR * count / most)}"
            for length, count in self.histogram
        ]
        return lines

    def describe_samples(self) -> list[str]:
        """Return the `shown` examples as lines for the terminal; they are data and may contain any character."""
        lines = []
        for number, text in enumerate(self.shown, start=1):
            lines += [f"sample {number} (trainable: ⟦...⟧)", *(f"  {line}" for line in text.splitlines())]
        return lines


def examine(
    samples: Iterable[TrainingSample | Dropped], model: ModelFolder, settings: TrainSettings
) -> tuple[TrainingData, Audit]:
    """Return the training data and its audit, which the caller still has to check with `Audit.check`.

    Args:
        samples: samples to train on.
        model: base model, whose tokenizer is used.
        settings: template, lengths and held-out fraction.

    Raises:
        UsageError: `max_length` exceeds the model's context, or the tokenizer or chat template cannot be used.
    """
    from selfinstruct_local.train.trainer import load_tokenizer

    model.check_context(settings.max_length, "--max-length")
    tokenizer = load_tokenizer(model)
    data = build_examples(samples, tokenizer, settings)
    check_training_tokens((each.input_ids for each in [*data.examples, *data.held_out]), model, settings.pad_vocab_to)
    return data, make_audit(data, tokenizer, settings.template)


def make_audit(data: TrainingData, tokenizer: "PreTrainedTokenizerBase", template: TemplateName = "alpaca") -> Audit:
    """Return the audit of `data`, which shows the first, the middle and the last example.

    Args:
        data: training data.
        tokenizer: tokenizer of the base model.
        template: template that the examples were made with.
    """
    examples = data.examples
    end = answer_end(tokenizer, template)
    longest = max((len(example.input_ids) for example in examples), default=0)
    width = max(1, -(-longest // BINS))
    bins = Counter((len(example.input_ids) - 1) // width for example in examples)
    shown = sorted({0, len(examples) // 2, len(examples) - 1}) if examples else []
    return Audit(
        samples=data.samples,
        examples=len(examples),
        held_out=len(data.held_out),
        dropped=dict(data.dropped),
        truncated=sum(example.truncated for example in examples),
        unsupervised=sum(example.supervised == 0 for example in examples),
        endless=sum(_last_learnt(example) != end for example in examples),
        merged=sum(example.merged for example in examples),
        endings=dict(Counter(example.ending for example in examples if example.ending).most_common()),
        tokens=data.tokens,
        supervised=data.supervised_tokens,
        histogram=tuple(((number + 1) * width, bins[number]) for number in range(max(bins, default=-1) + 1)),
        shown=tuple(mark(examples[index], tokenizer) for index in shown[:SHOWN]),
    )


def _last_learnt(example: Example) -> int:
    return next((label for label in reversed(example.labels) if label != IGNORED), IGNORED)


def mark(example: Example, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the text of an example, with its trainable tokens between ⟦ and ⟧."""
    parts: list[str] = []
    start = done = 0
    ids, labels = example.input_ids, example.labels
    for index in range(1, len(ids) + 1):
        if index == len(ids) or (labels[index] == IGNORED) != (labels[start] == IGNORED):
            # Decoded separately, a part would lose the space before its first word.
            text = str(tokenizer.decode(ids[:index], skip_special_tokens=False))
            parts.append(text[done:] if labels[start] == IGNORED else f"⟦{text[done:]}⟧")
            start, done = index, len(text)
    return "".join(parts)
