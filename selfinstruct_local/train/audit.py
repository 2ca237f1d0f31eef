"""What a training would learn from, looked at before any step: counts, lengths, and samples, their learnt part marked.

Everything is counted on the token ids and labels that will be fed to the model, not on the texts they came from.
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
from selfinstruct_local.train.sources import Dropped, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BINS = 8
SHOWN = 3
_BAR = 30


@dataclass(frozen=True, slots=True)
class Audit:
    """The counts.

    Attributes:
        samples: that were read.
        examples: to learn from.
        held_out: for the validation loss.
        dropped: count by reason.
        truncated: examples whose response was cut.
        unsupervised: examples without a token that carries loss.
        endless: examples whose last token that carries loss is not one that ends an answer.
        merged: examples in which the first token of an answer reaches back into its prompt.
        endings: count by control-like text at the end of an answer.
        tokens: of all examples.
        supervised: of these, tokens that carry loss.
        histogram: (longest length in tokens, examples) of `BINS` bins of equal width.
        shown: examples as text, what carries loss between ⟦ and ⟧.
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
        """Share of the samples that were dropped."""
        return sum(self.dropped.values()) / self.samples if self.samples else 0.0

    def check(self, settings: TrainSettings) -> None:
        """Refuses what would waste a training.

        Raises:
            UsageError: nothing is left, too much was dropped, or an example teaches nothing or no end.
        """
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        if not self.examples:
            message = f"--data: no example is left to train on ({reasons or 'no tasks'}); see --max-length"
            raise UsageError(message)
        if self.lost > settings.max_dropped:
            message = (
                f"--data: {self.lost:.0%} of {self.samples:,} samples were dropped ({reasons}); raise --max-length, "
                f"take --overlong truncate, or allow it with --max-dropped {self.lost + 0.005:.2f}"
            )
            raise UsageError(message)
        if self.unsupervised or self.endless:
            message = f"--data: {self.unsupervised} examples carry no loss and {self.endless} do not learn their end"
            raise UsageError(message)

    def describe(self) -> list[str]:
        """The counts, as lines for a terminal."""
        lines = [f"samples {self.samples:,}: {self.examples:,} to learn from, {self.held_out:,} held out"]
        lines += [f"  dropped {count:,}: {reason}" for reason, count in self.dropped.items()]
        lines.append(
            f"truncated {self.truncated:,} ({self.truncated / max(1, self.examples):.1%}); "
            f"without loss {self.unsupervised:,}; without a learnt end {self.endless:,}"
        )
        if self.merged:
            lines.append(
                f"answers whose first token begins inside the prompt {self.merged:,}: no prompt leads to such a token; "
                "remove the spaces or signs before these answers"
            )
        if self.endings:
            each = ", ".join(f"{text!r} {count:,}" for text, count in self.endings.items())
            lines.append(f"answers that end with control-like text, which is learnt as text: {each}; remove it")
        lines.append(
            f"tokens {self.tokens:,}, {self.tokens / max(1, self.examples):.0f} an example; with loss "
            f"{self.supervised:,} ({self.supervised / max(1, self.tokens):.0%})"
        )
        most = max((count for _, count in self.histogram), default=0)
        lines += [
            f"  up to {length:5,} tokens {count:8,} {'▇' * round(_BAR * count / most)}"
            for length, count in self.histogram
        ]
        return lines

    def describe_samples(self) -> list[str]:
        """The samples that are shown, as lines; they are data, and may hold anything."""
        lines = []
        for number, text in enumerate(self.shown, start=1):
            lines += [f"sample {number} (learnt: ⟦...⟧)", *(f"  {line}" for line in text.splitlines())]
        return lines


def examine(
    samples: Iterable[Sample | Dropped], model: ModelFolder, settings: TrainSettings
) -> tuple[TrainingData, Audit]:
    """Makes the examples and counts them; the counts are still to be checked.

    Args:
        samples: what to learn.
        model: the base, by whose tokenizer.
        settings: template, lengths, what is held out.

    Raises:
        UsageError: the examples may be longer than the model reaches, or its tokenizer or template will not do.
    """
    from selfinstruct_local.train.trainer import load_tokenizer

    model.check_context(settings.max_length, "--max-length")
    tokenizer = load_tokenizer(model)
    data = build_examples(samples, tokenizer, settings)
    check_training_tokens((each.input_ids for each in [*data.examples, *data.held_out]), model, settings.pad_vocab_to)
    return data, make_audit(data, tokenizer, settings.template)


def make_audit(data: TrainingData, tokenizer: "PreTrainedTokenizerBase", template: TemplateName = "alpaca") -> Audit:
    """Counts what `data` holds; the samples that are shown are the first, the middle and the last.

    Args:
        data: the examples.
        tokenizer: of the base model.
        template: by which they were made.
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
    """The text of an example, with what carries loss between ⟦ and ⟧."""
    parts: list[str] = []
    start = done = 0
    ids, labels = example.input_ids, example.labels
    for index in range(1, len(ids) + 1):
        if index == len(ids) or (labels[index] == IGNORED) != (labels[start] == IGNORED):
            # A part by itself would lose the space before its first word.
            text = str(tokenizer.decode(ids[:index], skip_special_tokens=False))
            parts.append(text[done:] if labels[start] == IGNORED else f"⟦{text[done:]}⟧")
            start, done = index, len(text)
    return "".join(parts)
