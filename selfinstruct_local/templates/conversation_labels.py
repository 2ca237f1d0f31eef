"""Label masks of conversations: the tokens of a chat template's rendering that the model is trained on.

The token ids are those of one rendering of the whole conversation by the model's own template. Trainable are the tokens
that the model has to generate: for each assistant turn, everything after the generation prompt up to and including the
first control token after the content. That token is the template's end of turn (`<end_of_turn>`, `<|eot_id|>`, `</s>`)
and may differ from the tokenizer's `eos_token`.

transformers returns this mask (`return_assistant_tokens_mask`) only for templates with `{% generation %}` marks, which
hardly any template has; TRL has marked copies of some. No marks are needed here: one rendering per sequence of roles,
with placeholders as contents, shows what the template writes between the turns.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_local.templates.conversation import (
    ControlTokens,
    EncodedParts,
    Message,
    TemplateRefusedError,
    apply_template,
    check_chat_tokenizer,
    without_system,
)
from selfinstruct_local.templates.turns import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # start and end in characters of a rendered text
HIDDEN_ANSWER = "the chat template does not render each assistant turn exactly once"


class Encoded(NamedTuple):
    """The tokens and label mask of a sample.

    Attributes:
        ids: ids of all tokens.
        learnt: whether each token is trainable.
        end: id of the token that ends a response, for responses that are truncated.
        merged: whether the first token of a response begins inside its prompt, so that the model cannot generate it
            after the prompt.
    """

    ids: list[int]
    learnt: list[bool]
    end: int
    merged: bool = False


@dataclass(frozen=True, slots=True)
class _Layout:
    """The text that a template writes around the contents, for one sequence of roles.

    Attributes:
        without_system: whether the system text has to be moved into the first user turn.
        between: the texts before the first content, between each two contents, and after the last.
        prompts: for each assistant turn, the generation prompt after the content of the previous turn.
        ends: for each assistant turn, the end-of-turn text after its content.
    """

    without_system: bool
    between: tuple[str, ...]
    prompts: dict[int, str]
    ends: dict[int, str]


class ConversationEncoder:
    """Encodes conversations with a model's chat template. Not thread-safe."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
        """Set the tokenizer; the template is first rendered when a conversation is encoded.

        Args:
            tokenizer: tokenizer of the model.
            name: name of the model, for messages.

        Raises:
            UsageError: the tokenizer has no chat template, or is not from the `tokenizers` library.
        """
        check_chat_tokenizer(tokenizer, name)
        self._tokenizer = tokenizer
        self._name = name
        self._control = ControlTokens(tokenizer)
        self._nonce = secrets.token_hex(4)
        self._layouts: dict[tuple[str, ...], _Layout | str] = {}

    @cached_property
    def turn_end(self) -> int | None:
        """Id of the token that ends an assistant turn; None if the template has none, and `eos_token` is appended."""
        layout = self._layout(("user", "assistant"))
        found = None if isinstance(layout, str) else self._end_of_turn.match(layout.ends[1])
        # A few templates end a turn with two tokens; their models stop at the last one.
        return None if found is None else int(self._tokenizer.added_tokens_encoder[found["more"] or found["first"]])

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> Iterator[Encoded | str]:
        """Yield the tokens and label mask of each conversation, or the reason why it is dropped.

        Args:
            conversations: conversations with at least one assistant turn each; control tokens in contents are plain
                text.
        """
        found = [self._render(turns) for turns in conversations]
        encoded = iter(self._control.encode_parts([each.parts for each in found if not isinstance(each, str)]))
        for each in found:
            yield each if isinstance(each, str) else self._label(each, next(encoded))

    def _label(self, rendered: "_Rendered", encoded: EncodedParts) -> Encoded:
        ids, offsets, borders = encoded
        learnt = [False] * len(ids)
        merged = False
        # Both parts and tokens are in text order.
        token = 0
        for part, (start, end) in enumerate(pairwise(borders)):
            if not rendered.is_learnt(part):
                continue
            while token < len(ids) and max(offsets[token][1], offsets[token][0] + 1) <= start:
                token += 1
            merged |= token < len(ids) and offsets[token][0] < start
            while token < len(ids) and offsets[token][0] < end:
                learnt[token] = True
                token += 1
        turn_end = self.turn_end
        end_id = self._tokenizer.eos_token_id if turn_end is None else turn_end
        if not rendered.ends:
            ids = [*ids, end_id]
            learnt.append(True)
        return Encoded(ids, learnt, int(end_id), merged)

    def _render(self, turns: Sequence[Turn]) -> "_Rendered | str":
        layout = self._layout(tuple(turn.role for turn in turns))
        if isinstance(layout, str):
            return layout
        messages = [Message(role=turn.role, content=self._control.hide(turn.content)) for turn in turns]
        if layout.without_system:
            messages = without_system(messages)
        try:
            text = self._apply(messages)
            contents = _align(text, messages, layout.between) or self._compare(text, messages)
        except TemplateRefusedError as error:
            return _reason(error)
        if contents is None:
            return HIDDEN_ANSWER
        return self._cut(text, contents, layout)

    def _cut(self, text: str, contents: Sequence[Span | None], layout: _Layout) -> "_Rendered | str":
        """Split a rendering into untrained and trainable parts, or return the reason why the sample is dropped."""
        borders = [0]
        ends = False
        for turn, prompt in layout.prompts.items():
            content = contents[turn]
            if content is None:
                return HIDDEN_ANSWER
            before = next((each[1] for each in reversed(contents[:turn]) if each), 0)
            start = before + _shared(text[before : content[0]], prompt)
            ends = bool(layout.ends[turn]) and text.startswith(layout.ends[turn], content[1])
            borders += [start, content[1] + (len(layout.ends[turn]) if ends else 0)]
        return _Rendered([text[start:end] for start, end in zip(borders, [*borders[1:], len(text)], strict=True)], ends)

    def _compare(self, text: str, messages: Sequence[Message]) -> list[Span | None] | None:
        """Return the span of each content, found by replacing one content at a time and comparing the renderings.

        Needs one rendering per turn. Used for templates that change more of a content than the spaces around it, such
        as those that remove the reasoning from earlier turns.
        """
        found: list[Span | None] = []
        for index, message in enumerate(messages):
            placeholder = self._placeholder(index)
            other = self._apply([*messages[:index], {**message, "content": placeholder}, *messages[index + 1 :]])
            if placeholder not in other:
                found.append(None)
                continue
            start = _shared(text, other)
            room = min(len(text), len(other)) - start
            same = _shared(text[::-1], other[::-1])
            found.append((start, len(text) - min(same, room)))
        return found

    def _layout(self, roles: tuple[str, ...]) -> _Layout | str:
        """Return the cached layout for a sequence of roles, or the reason why there is none."""
        if roles not in self._layouts:
            try:
                self._layouts[roles] = self._read_layout(roles)
            except TemplateRefusedError as error:
                self._layouts[roles] = _reason(error)
        return self._layouts[roles]

    def _read_layout(self, roles: tuple[str, ...]) -> _Layout | str:
        messages = [Message(role=role, content=self._placeholder(index)) for index, role in enumerate(roles)]
        merged = False
        try:
            text = self._apply(messages)
        except TemplateRefusedError:
            if roles[0] != "system":
                raise
            merged = True
        # Some templates silently ignore a system turn.
        if roles[0] == "system" and (merged or self._placeholder(0) not in text):
            merged = True
            messages = without_system(messages)
            text = self._apply(messages)
        contents = [message["content"] for message in messages]
        between = tuple(re.split("|".join(map(re.escape, contents)), text))
        if len(between) != len(contents) + 1:
            return HIDDEN_ANSWER
        prompts, ends = {}, {}
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                asked = self._apply(messages[:turn], add_generation_prompt=True)
                # The first word's token includes the space before it; see `PromptEncoder`.
                prompts[turn] = asked.rpartition(contents[turn - 1])[2].rstrip(" ") if turn else asked.rstrip(" ")
                ends[turn] = self._read_end(messages[: turn + 1], between[turn + 1], header=between[0])
        return _Layout(merged, between, prompts, ends)

    def _read_end(self, messages: Sequence[Message], follows: str, *, header: str) -> str:
        """Return the end-of-turn text: the part of `follows` that does not depend on the role of the next turn.

        Args:
            messages: the conversation up to and including the turn.
            follows: text that the template writes between its content and the next.
            header: text that the template writes before the first content.
        """
        for others in ([], [Message(role="assistant", content="-")], [Message(role="system", content="-")]):
            try:
                text = self._apply([*messages, *others])
            except TemplateRefusedError:
                continue
            same = follows[: _shared(follows, text.rpartition(messages[-1]["content"])[2])]
            found = self._end_of_turn.match(same)
            if found and not others:
                return found[0]
            # The next turn's header may also begin with a control token, after an end of turn or instead of one.
            if found and (found["more"] or found["first"] not in header):
                return same[: found.end("first")]
        return ""

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        return apply_template(self._tokenizer, self._name, list(messages), add_generation_prompt=add_generation_prompt)

    def _placeholder(self, turn: int) -> str:
        """Return a content that cannot occur in data; without spaces, since many templates strip contents."""
        return f"\ue004{self._nonce}.{turn}\ue005"

    @cached_property
    def _end_of_turn(self) -> re.Pattern[str]:
        """Pattern for the text after a content, up to and including the first run of control tokens."""
        added = {token.content for token in self._tokenizer.added_tokens_decoder.values() if token.content.strip()}
        tokens = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        tokens = tokens or "(?!)"
        return re.compile(f"(?s:.*?)(?P<first>{tokens})(?P<more>{tokens})*")


class _Rendered(NamedTuple):
    """A rendered conversation, split into parts.

    Attributes:
        parts: parts of the text, alternately untrained and trainable; the first one is untrained.
        ends: whether the last trainable part ends with a control token.
    """

    parts: list[str]
    ends: bool

    @staticmethod
    def is_learnt(part: int) -> bool:
        """Return whether a part is trainable."""
        return part % 2 == 1


def _align(text: str, messages: Sequence[Message], between: Sequence[str]) -> list[Span | None] | None:
    """Return the spans of the contents in `text`, or None if the template changed more than the spaces around them."""
    if not text.startswith(between[0]):
        return None
    found: list[Span | None] = []
    position = len(between[0])
    for message, after in zip(messages, between[1:], strict=True):
        content = message["content"]
        for form in (content, content.strip(), content.lstrip(), content.rstrip()):
            end = position + len(form)
            if text.startswith(form, position) and text.startswith(after, end):
                break
        else:
            return None
        found.append((position, end))
        position = end + len(after)
    return found if position == len(text) else None


def _shared(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts in characters."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _reason(error: TemplateRefusedError) -> str:
    """Return the reason why a conversation is dropped, without the model's name."""
    return str(error).partition(": its ")[2].replace("rejects a conversation", "rejects it") or str(error)
