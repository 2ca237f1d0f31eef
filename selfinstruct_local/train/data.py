"""Tokenised training examples with label masks, and counts of the dropped samples.

With the Alpaca template an example is the prompt followed by the response, tokenised as one text, as published. With
the chat template it is the model's own rendering of the conversation. All labels outside the responses are -100, so
only the responses are trained. One end-of-sequence token follows each response and is always trainable.
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
from selfinstruct_local.train.sources import Dropped, TrainingSample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that PyTorch's cross entropy ignores
EMPTY = "empty response"
_CHUNK = 1_000  # texts per call of the tokenizer, which processes a batch on all cores
# Llama's and Mistral's control tokens, and the two forms of nearly all others: <|name|> and <name_of_something>.
_LIKE_CONTROL_TOKENS = (
    r"</?s>|\[/?INST\]|<\|[^<>|\s]{1,40}\|>|<(?:bos|eos|pad|(?:start|end)_of_(?:turn|text|utterance))>"
)
_ENDING_LENGTH = 100


class Example(NamedTuple):
    """Token ids and labels of one sample; both have the same length.

    Attributes:
        input_ids: token ids of prompts and responses.
        labels: ids of the trainable tokens, `IGNORED` for all others.
        truncated: whether a response was truncated.
        merged: whether the first token of a response begins inside its prompt.
        ending: control-like text, such as `<|endoftext|>`, at the end of a response, where it is trained as plain
            text; empty if there is none.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool = False
    merged: bool = False
    ending: str = ""

    @property
    def supervised(self) -> int:
        """Number of trainable tokens; the first token never counts, since nothing predicts it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(slots=True)
class TrainingData:
    """Training and held-out examples, and the number of dropped samples by reason.

    Attributes:
        examples: training examples, in the order of the samples.
        held_out: examples for the validation loss.
        dropped: number of dropped samples by reason.
    """

    examples: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples read."""
        return len(self.examples) + len(self.held_out) + sum(self.dropped.values())

    @property
    def tokens(self) -> int:
        """Number of tokens of all training examples."""
        return sum(len(example.input_ids) for example in self.examples)

    @property
    def supervised_tokens(self) -> int:
        """Number of trainable tokens of all training examples."""
        return sum(example.supervised for example in self.examples)

    def drop(self, reason: str) -> None:
        """Count one dropped sample."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def build_examples(
    samples: Iterable[TrainingSample | Dropped], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> TrainingData:
    """Return one example per sample, with a held-out split, and counts of the samples that cannot be used.

    Args:
        samples: samples to train on.
        tokenizer: tokenizer of the base model.
        settings: template, length and held-out fraction.

    Raises:
        UsageError: the tokenizer has no end-of-sequence token, or `template` is `chat` and it has no chat template.
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
    samples: Iterable[TrainingSample | Dropped], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> Iterator[Example | str]:
    """Yield the example of each sample in order, or the reason why it is dropped; see `build_examples`."""
    if tokenizer.eos_token_id is None:
        message = (
            f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token, so the model cannot learn to stop; "
            "set 'eos_token' in tokenizer_config.json"
        )
        raise UsageError(message)
    fit = _Fit(settings.max_length, settings.overlong)
    encode = _make_encode(tokenizer, settings)
    control_text = _control_text(tokenizer)
    rows = iter(samples)
    while chunk := list(islice(rows, _CHUNK)):
        made = encode([each for each in chunk if isinstance(each, TrainingSample)])
        for each in chunk:
            encoded = each.reason if isinstance(each, Dropped) else next(made)
            example = encoded if isinstance(encoded, str) else fit.example(encoded)
            if isinstance(each, TrainingSample) and isinstance(example, Example):
                example = example._replace(ending=_find_ending(each, control_text))
            yield _on_prompt(example) if settings.train_on_prompt and isinstance(example, Example) else example


def answer_end(tokenizer: "PreTrainedTokenizerBase", template: TemplateName) -> int:
    """Return the id of the token that ends a response: the chat template's end of turn, or the `eos_token`.

    Raises:
        UsageError: `template` is `chat` and the tokenizer has no chat template.
    """
    own = ConversationEncoder(tokenizer, str(tokenizer.name_or_path)).turn_end if template == "chat" else None
    return int(tokenizer.eos_token_id) if own is None else own


def _make_encode(
    tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> Callable[[Sequence[TrainingSample]], Iterator[Encoded | str]]:
    if settings.template == "chat":
        return partial(_encode_chats, ConversationEncoder(tokenizer, str(tokenizer.name_or_path)))
    return partial(_encode_alpaca, tokenizer)


def _control_text(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """Return a pattern for a text that ends with a control token of this tokenizer or of other model families."""
    own = "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
    return re.compile(rf"({own + '|' if own else ''}{_LIKE_CONTROL_TOKENS})\s*$")


def _find_ending(sample: TrainingSample, control_text: re.Pattern[str]) -> str:
    """Return the control-like text at the end of one of a sample's responses, or ""."""
    answers = (turn.content[-_ENDING_LENGTH:] for turn in sample.turns if turn.role == "assistant")
    found = next(filter(None, map(control_text.search, answers)), None)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class _Fit:
    """Turns an encoded sample into an example of at most `max_length` tokens."""

    max_length: int
    overlong: Overlong

    def example(self, encoded: Encoded) -> Example | str:
        """Return the example, or the reason why the sample is dropped."""
        ids, learnt = encoded.ids, encoded.learnt
        overlong = len(ids) > self.max_length
        if overlong:
            if self.overlong == "drop":
                return f"longer than {self.max_length} tokens"
            ids, learnt = self._cut(encoded)
        if not any(learnt):
            return f"prompt longer than {self.max_length} tokens"
        labels = [token if carries_loss else IGNORED for token, carries_loss in zip(ids, learnt, strict=True)]
        return Example(ids, labels, truncated=overlong, merged=encoded.merged)

    def _cut(self, encoded: Encoded) -> tuple[list[int], list[bool]]:
        """Return ids and label mask cut to `max_length` and to the last trainable token.

        A truncated response gets the end token as its last token.
        """
        length = self.max_length
        ids, learnt = encoded.ids[:length], encoded.learnt[:length]
        if learnt[-1] and encoded.learnt[length]:
            ids[-1] = encoded.end
            if not any(learnt[-2:-1]):  # nothing of the response is left except for its end token
                learnt[-1] = False
        while learnt and not learnt[-1]:  # a prompt without its response
            learnt.pop()
        return ids[: len(learnt)], learnt


def _encode_alpaca(tokenizer: "PreTrainedTokenizerBase", samples: Sequence[TrainingSample]) -> Iterator[Encoded | str]:
    texts = [_alpaca_texts(sample) for sample in samples]
    single = [each for each in texts if not isinstance(each, str)]
    # Text that looks like a control token is plain text: a task may mention </s>.
    options = {"split_special_tokens": True}
    prompts = iter(tokenizer([prompt for prompt, _ in single], **options)["input_ids"] if single else ())
    whole = iter(tokenizer([prompt + answer for prompt, answer in single], **options)["input_ids"] if single else ())
    # Some tokenizers append an end token to every text, including the prompt.
    appended = count_appended_tokens(tokenizer)
    end = int(tokenizer.eos_token_id)
    for each in texts:
        if isinstance(each, str):
            yield each
            continue
        prompt, ids = next(prompts), next(whole)
        # Masks as many tokens as the prompt has on its own, as published.
        start, stop = len(prompt) - appended, len(ids) - appended
        learnt = [False] * start + [True] * (stop - start + 1)
        yield Encoded([*ids[:stop], end], learnt, end, merged=ids[:start] != prompt[:start])


def _alpaca_texts(sample: TrainingSample) -> tuple[str, str] | str:
    """Return prompt and response, or the reason why the sample is dropped."""
    if _has_empty_response(sample):
        return EMPTY
    if len(sample.turns) != 2:  # noqa: PLR2004 - a user turn and an assistant turn
        return "a conversation of more than two turns, which the Alpaca template does not support"
    question, answer = (turn.content for turn in sample.turns)
    return question if sample.verbatim else alpaca_prompt(question, sample.input), answer


def _has_empty_response(sample: TrainingSample) -> bool:
    return not all(turn.content.strip() for turn in sample.turns if turn.role == "assistant")


def _encode_chats(encoder: ConversationEncoder, samples: Sequence[TrainingSample]) -> Iterator[Encoded | str]:
    turns = [_chat_turns(sample) for sample in samples]
    encoded = encoder.encode([each for each in turns if not isinstance(each, str)])
    for each in turns:
        yield each if isinstance(each, str) else next(encoded)


def _chat_turns(sample: TrainingSample) -> tuple[Turn, ...] | str:
    """Return the turns for the chat template, or the reason why the sample is dropped."""
    if _has_empty_response(sample):
        return EMPTY
    if sample.verbatim:
        return "a plain-text prompt, not a conversation"
    if sample.input:
        first, *rest = sample.turns
        return user_turn(first.content, sample.input), *rest
    return sample.turns


def _on_prompt(example: Example) -> Example:
    return example._replace(labels=list(example.input_ids))


def _hold_out(data: TrainingData, share: float, seed: int) -> None:
    # A weight above 1 duplicates samples; a held-out copy of a training example would measure memorisation.
    copies: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(data.examples):
        copies.setdefault(tuple(example.input_ids), []).append(index)
    count = round(share * len(copies))
    drawn = Random(f"hold out {seed}").sample(list(copies.values()), count)  # noqa: S311 - not for cryptography
    chosen = {index for group in drawn for index in group}
    data.held_out = [example for index, example in enumerate(data.examples) if index in chosen]
    data.examples = [example for index, example in enumerate(data.examples) if index not in chosen]
