"""Turns samples into training examples, and counts what does not become one.

With the Alpaca template an example is the prompt with the response behind it, tokenised as one text, as published; with
the chat template it is what the model's own template makes of the conversation. The labels of what others say are -100,
so the loss is on the responses alone; the end-of-sequence token is there once after each response and always a label.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_local.engine.base import Request, RequestKey, Sampling, Turn
from selfinstruct_local.engine.conversation import PromptEncoder
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.train.settings import Overlong, TrainSettings
from selfinstruct_local.train.sources import Dropped, Sample
from selfinstruct_local.train.template import alpaca_prompt, user_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
EMPTY = "empty response"
_CHUNK = 1_000  # texts in one call of the tokenizer, which then works on all cores


class Example(NamedTuple):
    """Token ids and labels of one sample, of the same length."""

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False

    @property
    def supervised(self) -> int:
        """Tokens that carry loss; the first token never does, since nothing predicts it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(slots=True)
class TrainingData:
    """The examples, and how many samples did not become one and why.

    Attributes:
        examples: to learn from, in the order of the samples.
        held_out: for the validation loss.
        dropped: count by reason.
    """

    examples: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many there were."""
        return len(self.examples) + len(self.held_out) + sum(self.dropped.values())

    @property
    def tokens(self) -> int:
        """Of all examples to learn from."""
        return sum(len(example.input_ids) for example in self.examples)

    @property
    def supervised_tokens(self) -> int:
        """Tokens that carry loss, over all examples to learn from."""
        return sum(example.supervised for example in self.examples)

    def drop(self, reason: str) -> None:
        """Counts a sample that does not become an example."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def build_examples(
    samples: Iterable[Sample | Dropped], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> TrainingData:
    """Builds one example for each sample, and counts those that make none.

    Args:
        samples: what to learn.
        tokenizer: of the base model.
        settings: template, length, what is held out.

    Raises:
        WrongUseError: the tokenizer has no end-of-sequence token, or no chat template where one is asked for.
    """
    data = TrainingData()
    for made in make_examples(samples, tokenizer, settings):
        if isinstance(made, str):
            data.drop(made)
        else:
            data.examples.append(made)
    if settings.validation:
        _hold_out(data, settings.validation, settings.seed)
    return data


def make_examples(
    samples: Iterable[Sample | Dropped], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> Iterator[Example | str]:
    """The example of each sample in their order, or why there is none; takes and raises what `build_examples` does."""
    if tokenizer.eos_token_id is None:
        message = (
            f"{tokenizer.name_or_path}: its tokenizer names no end-of-sequence token; a model could not learn to stop"
        )
        raise WrongUseError(message)
    fit = _Fit(settings.max_length, settings.overlong, tokenizer.eos_token_id)
    encode = _encode_chats if settings.template == "chat" else _encode_alpaca
    rows = iter(samples)
    while chunk := list(islice(rows, _CHUNK)):
        encoded = encode([each for each in chunk if isinstance(each, Sample)], tokenizer)
        for each in chunk:
            spans = each.reason if isinstance(each, Dropped) else next(encoded)
            example = spans if isinstance(spans, str) else fit.example(spans)
            yield _on_prompt(example) if settings.train_on_prompt and isinstance(example, Example) else example


# What is said and who learns from it: token ids, and whether they carry loss.
_Spans = list[tuple[list[int], bool]]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Makes spans of tokens one example that has room and ends."""

    max_length: int
    overlong: Overlong
    end: int

    def example(self, spans: _Spans) -> Example | str:
        """The example, or why there is none."""
        length = sum(len(ids) for ids, _ in spans)
        if length > self.max_length and self.overlong == "drop":
            return f"longer than {self.max_length} tokens"
        input_ids: list[int] = []
        labels: list[int] = []
        for ids, learnt in spans:
            room = self.max_length - len(input_ids)
            # Of a response that is cut something must be left beside its end.
            if len(ids) > room and (not learnt or room < 2):  # noqa: PLR2004
                break
            kept = ids if len(ids) <= room else [*ids[: room - 1], self.end]
            input_ids += kept
            labels += kept if learnt else [IGNORED] * len(kept)
        while labels and labels[-1] == IGNORED:  # a question without its answer
            labels.pop()
            input_ids.pop()
        if not labels:
            return f"its prompt alone has more than {self.max_length} tokens"
        return Example(input_ids, labels, truncated=length > self.max_length)


def _encode_alpaca(samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase") -> Iterator[_Spans | str]:
    texts = [_alpaca_texts(sample) for sample in samples]
    single = [each for each in texts if not isinstance(each, str)]
    # Text that reads like a control token is text here: a task may speak of </s>.
    options = {"split_special_tokens": True}
    prompts = iter(tokenizer([prompt for prompt, _ in single], **options)["input_ids"] if single else ())
    whole = iter(tokenizer([prompt + answer for prompt, answer in single], **options)["input_ids"] if single else ())
    for each in texts:
        if isinstance(each, str):
            yield each
            continue
        start, ids = len(next(prompts)), next(whole)
        # Some tokenizers add the end token by themselves; it must stand there exactly once.
        end = [] if ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
        yield [(list(ids[:start]), False), ([*ids[start:], *end], True)]


def _alpaca_texts(sample: Sample) -> tuple[str, str] | str:
    """Prompt and answer, or why there are none."""
    if _has_empty_response(sample):
        return EMPTY
    if len(sample.turns) != 2:  # noqa: PLR2004 - a question and its answer
        return "a conversation of several turns, which the Alpaca template has no place for"
    question, answer = (turn.content for turn in sample.turns)
    return question if sample.verbatim else alpaca_prompt(question, sample.input), answer


def _has_empty_response(sample: Sample) -> bool:
    return not all(turn.content.strip() for turn in sample.turns if turn.role == "assistant")


def _encode_chats(samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase") -> Iterator[_Spans | str]:
    encoder = PromptEncoder(tokenizer, str(tokenizer.name_or_path))
    for sample in samples:
        if _has_empty_response(sample):
            yield EMPTY
        elif sample.verbatim:
            yield "a text prompt, which is no conversation"
        else:
            yield _encode_chat(sample, encoder, tokenizer)


def _encode_chat(sample: Sample, encoder: PromptEncoder, tokenizer: "PreTrainedTokenizerBase") -> _Spans | str:
    turns = list(sample.turns)
    if sample.input:
        turns[0] = user_turn(turns[0].content, sample.input)
    spans: _Spans = []
    done: list[int] = []
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        before = encoder.encode(_request(turns[:number]))
        whole = encoder.encode(_request(turns[:number], turn.content))
        if before[: len(done)] != done or whole[: len(before)] != before:
            return "the chat template writes earlier turns anew, so what is learnt cannot be told apart"
        spans.append((before[len(done) :], False))
        spans.append(([*whole[len(before) :], tokenizer.eos_token_id], True))
        done = [*whole, tokenizer.eos_token_id]
    return spans


def _request(turns: Sequence[Turn], begun: str = "") -> Request:
    return Request(RequestKey(0, "train", 0), begun, Sampling(0.0, 1.0, 1), tuple(turns))


def _on_prompt(example: Example) -> Example:
    return example._replace(labels=list(example.input_ids))


def _hold_out(data: TrainingData, share: float, seed: int) -> None:
    # A weight makes copies; one that is held out while another is learnt would measure memory.
    copies: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(data.examples):
        copies.setdefault(tuple(example.input_ids), []).append(index)
    count = round(share * len(copies))
    drawn = Random(f"hold out {seed}").sample(list(copies.values()), count)  # noqa: S311 - a draw of data
    chosen = {index for group in drawn for index in group}
    data.held_out = [example for index, example in enumerate(data.examples) if index in chosen]
    data.examples = [example for index, example in enumerate(data.examples) if index not in chosen]
