"""Turns samples into training examples, and counts what does not become one.

With the Alpaca template an example is the prompt with the response behind it, tokenised as one text, as published; with
the chat template it is what the model's own template makes of the conversation. The labels of what others say are -100,
so the loss is on the responses alone; the end-of-sequence token is there once after each response and always a label.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_local.errors import UsageError
from selfinstruct_local.templates.alpaca import TemplateName, alpaca_prompt, user_turn
from selfinstruct_local.templates.conversation import count_appended_tokens
from selfinstruct_local.templates.conversation_labels import ConversationEncoder, Encoded
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.settings import Overlong, TrainSettings
from selfinstruct_local.train.sources import Dropped, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
EMPTY = "empty response"
_CHUNK = 1_000  # texts in one call of the tokenizer, which then works on all cores
# Llama's and Mistral's, and the two forms that nearly all others have: <|name|> and <name_of_something>.
_LIKE_CONTROL_TOKENS = (
    r"</?s>|\[/?INST\]|<\|[^<>|\s]{1,40}\|>|<(?:bos|eos|pad|(?:start|end)_of_(?:turn|text|utterance))>"
)
_ENDING_LENGTH = 100


class Example(NamedTuple):
    """Token ids and labels of one sample, of the same length.

    Attributes:
        input_ids: of prompts and answers.
        labels: the ids that carry loss; elsewhere `IGNORED`.
        truncated: whether a response was cut.
        merged: whether the first token of an answer reaches back into its prompt.
        ending: control-like text, such as `<|endoftext|>`, at the end of an answer, where it is learnt as text.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False
    merged: bool = False
    ending: str = ""

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
        UsageError: the tokenizer has no end-of-sequence token, or no chat template where one is asked for.
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
        raise UsageError(message)
    fit = _Fit(settings.max_length, settings.overlong)
    encode = _make_encode(tokenizer, settings)
    control_text = _control_text(tokenizer)
    rows = iter(samples)
    while chunk := list(islice(rows, _CHUNK)):
        made = encode([each for each in chunk if isinstance(each, Sample)])
        for each in chunk:
            encoded = each.reason if isinstance(each, Dropped) else next(made)
            example = encoded if isinstance(encoded, str) else fit.example(encoded)
            if isinstance(each, Sample) and isinstance(example, Example):
                example = example._replace(ending=_find_ending(each, control_text))
            yield _on_prompt(example) if settings.train_on_prompt and isinstance(example, Example) else example


def answer_end(tokenizer: "PreTrainedTokenizerBase", template: TemplateName) -> int:
    """Return the id of the token that ends an answer: the chat template's end of turn, or the tokenizer's `eos_token`.

    Raises:
        UsageError: the chat template is asked for, and there is none.
    """
    own = ConversationEncoder(tokenizer, str(tokenizer.name_or_path)).turn_end if template == "chat" else None
    return int(tokenizer.eos_token_id) if own is None else own


def _make_encode(
    tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> Callable[[Sequence[Sample]], Iterator[Encoded | str]]:
    if settings.template == "chat":
        return partial(_encode_chats, ConversationEncoder(tokenizer, str(tokenizer.name_or_path)))
    return partial(_encode_alpaca, tokenizer)


def _control_text(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """What looks like a control token at the end of a text: one of this tokenizer, or the likes of other models."""
    own = "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
    return re.compile(rf"({own + '|' if own else ''}{_LIKE_CONTROL_TOKENS})\s*$")


def _find_ending(sample: Sample, control_text: re.Pattern[str]) -> str:
    """The control-like text at the end of one of a sample's answers; empty for none."""
    answers = (turn.content[-_ENDING_LENGTH:] for turn in sample.turns if turn.role == "assistant")
    found = next(filter(None, map(control_text.search, answers)), None)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class _Fit:
    """Makes tokens one example that has room and ends."""

    max_length: int
    overlong: Overlong

    def example(self, encoded: Encoded) -> Example | str:
        """The example, or why there is none."""
        ids, learnt = encoded.ids, encoded.learnt
        overlong = len(ids) > self.max_length
        if overlong:
            if self.overlong == "drop":
                return f"longer than {self.max_length} tokens"
            ids, learnt = self._cut(encoded)
        if not any(learnt):
            return f"its prompt alone has more than {self.max_length} tokens"
        labels = [token if carries_loss else IGNORED for token, carries_loss in zip(ids, learnt, strict=True)]
        return Example(ids, labels, truncated=overlong, merged=encoded.merged)

    def _cut(self, encoded: Encoded) -> tuple[list[int], list[bool]]:
        """The first `max_length` tokens, up to the last that is learnt; a response that is cut ends all the same."""
        length = self.max_length
        ids, learnt = encoded.ids[:length], encoded.learnt[:length]
        if learnt[-1] and encoded.learnt[length]:
            ids[-1] = encoded.end
            if not any(learnt[-2:-1]):  # of a response that is cut something must be left beside its end
                learnt[-1] = False
        while learnt and not learnt[-1]:  # a question without its answer
            learnt.pop()
        return ids[: len(learnt)], learnt


def _encode_alpaca(tokenizer: "PreTrainedTokenizerBase", samples: Sequence[Sample]) -> Iterator[Encoded | str]:
    texts = [_alpaca_texts(sample) for sample in samples]
    single = [each for each in texts if not isinstance(each, str)]
    # Text that reads like a control token is text here: a task may speak of </s>.
    options = {"split_special_tokens": True}
    prompts = iter(tokenizer([prompt for prompt, _ in single], **options)["input_ids"] if single else ())
    whole = iter(tokenizer([prompt + answer for prompt, answer in single], **options)["input_ids"] if single else ())
    # Some tokenizers end every text by themselves, the prompt too.
    appended = count_appended_tokens(tokenizer)
    end = int(tokenizer.eos_token_id)
    for each in texts:
        if isinstance(each, str):
            yield each
            continue
        prompt, ids = next(prompts), next(whole)
        # As many tokens as the prompt has are masked, as published.
        start, stop = len(prompt) - appended, len(ids) - appended
        learnt = [False] * start + [True] * (stop - start + 1)
        yield Encoded([*ids[:stop], end], learnt, end, merged=ids[:start] != prompt[:start])


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


def _encode_chats(encoder: ConversationEncoder, samples: Sequence[Sample]) -> Iterator[Encoded | str]:
    turns = [_chat_turns(sample) for sample in samples]
    encoded = encoder.encode([each for each in turns if not isinstance(each, str)])
    for each in turns:
        yield each if isinstance(each, str) else next(encoded)


def _chat_turns(sample: Sample) -> tuple[Turn, ...] | str:
    """The turns as the chat template takes them, or why there are none."""
    if _has_empty_response(sample):
        return EMPTY
    if sample.verbatim:
        return "a text prompt, which is no conversation"
    if sample.input:
        first, *rest = sample.turns
        return user_turn(first.content, sample.input), *rest
    return sample.turns


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
