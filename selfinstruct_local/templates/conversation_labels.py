"""Training examples from conversations: which tokens of a chat template's rendering the assistant has to learn.

The token ids are those of one rendering of the whole conversation by the model's own template. Learnt is what the model
would have to write itself: for each turn of the assistant, all that follows the generation prompt up to and including
the first control token behind the answer, which is the template's end of turn (`<end_of_turn>`, `<|eot_id|>`, `</s>`)
and need not be the tokenizer's `eos_token`.

transformers tells these tokens (`return_assistant_tokens_mask`) only for templates with `{% generation %}` marks, which
hardly any has; TRL has marked copies of some. No marks are needed here: one rendering per sequence of roles, with
placeholders as contents, shows what the template writes between the turns.
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

Span = tuple[int, int]  # characters of a rendered text, from and up to
HIDDEN_ANSWER = "the chat template does not show each answer of the assistant once"


class Encoded(NamedTuple):
    """The tokens of a sample.

    Attributes:
        ids: of all of it.
        learnt: for each token, whether it carries loss.
        end: the token that ends an answer, for one that has to be cut.
        merged: whether the first token of an answer reaches back into its prompt, so that no model that is asked with
            this prompt can write it.
    """

    ids: list[int]
    learnt: list[bool]
    end: int
    merged: bool = False


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a template writes around the contents of turns with certain roles.

    Attributes:
        without_system: whether the system's text has to go into the first user's turn.
        between: what precedes the first content, stands between two, and follows the last.
        prompts: for each turn of the assistant, the end of the generation prompt, from the content before it on.
        ends: for each turn of the assistant, what belongs to it behind its content.
    """

    without_system: bool
    between: tuple[str, ...]
    prompts: dict[int, str]
    ends: dict[int, str]


class ConversationEncoder:
    """Encodes conversations with a model's chat template; for one thread."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
        """Asks nothing of the template yet.

        Args:
            tokenizer: of the model.
            name: of the model, for errors.

        Raises:
            UsageError: the tokenizer has no chat template, or is not one of the `tokenizers` library.
        """
        check_chat_tokenizer(tokenizer, name)
        self._tokenizer = tokenizer
        self._name = name
        self._control = ControlTokens(tokenizer)
        self._nonce = secrets.token_hex(4)
        self._layouts: dict[tuple[str, ...], _Layout | str] = {}

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends an answer; None where the template writes none, and `eos_token` is put there."""
        layout = self._layout(("user", "assistant"))
        found = None if isinstance(layout, str) else self._end_of_turn.match(layout.ends[1])
        # A few end it by two tokens; the last one is what their models stop at.
        return None if found is None else int(self._tokenizer.added_tokens_encoder[found["more"] or found["first"]])

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> Iterator[Encoded | str]:
        """Encode each conversation, or say why it cannot be learnt.

        Args:
            conversations: each with at least one turn of the assistant; contents are data, whatever they hold.
        """
        found = [self._render(turns) for turns in conversations]
        encoded = iter(self._control.encode_parts([each.parts for each in found if not isinstance(each, str)]))
        for each in found:
            yield each if isinstance(each, str) else self._label(each, next(encoded))

    def _label(self, rendered: "_Rendered", encoded: EncodedParts) -> Encoded:
        ids, offsets, borders = encoded
        learnt = [False] * len(ids)
        merged = False
        # Parts and tokens both stand in the order of the text.
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
        """Part a rendering where what is learnt begins and ends; every second part is learnt."""
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
        """Find the contents by what changes of a rendering when one of them is another.

        This costs a rendering per turn. It is for templates that change a content by more than the spaces around it, as
        those do that take the thoughts out of earlier turns.
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
        """What the template writes around turns of these roles, or why it cannot be known."""
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
        # Some templates pass over a system turn without a word.
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
                # Words bring the space before them; see `PromptEncoder`.
                prompts[turn] = asked.rpartition(contents[turn - 1])[2].rstrip(" ") if turn else asked.rstrip(" ")
                ends[turn] = self._read_end(messages[: turn + 1], between[turn + 1], header=between[0])
        return _Layout(merged, between, prompts, ends)

    def _read_end(self, messages: Sequence[Message], follows: str, *, header: str) -> str:
        """Return the end of turn: the control tokens in `follows` that are there whoever speaks next.

        Args:
            messages: up to the turn.
            follows: what the template writes between its content and the next.
            header: what it writes before the first content of all.
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
            # The next turn's header may begin with a control token too, behind an end of turn or in place of one.
            if found and (found["more"] or found["first"] not in header):
                return same[: found.end("first")]
        return ""

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        return apply_template(self._tokenizer, self._name, list(messages), add_generation_prompt=add_generation_prompt)

    def _placeholder(self, turn: int) -> str:
        """A content that no data can hold; without spaces, since many templates strip what they are given."""
        return f"\ue004{self._nonce}.{turn}\ue005"

    @cached_property
    def _end_of_turn(self) -> re.Pattern[str]:
        """What follows an answer up to and including its first control tokens."""
        added = {token.content for token in self._tokenizer.added_tokens_decoder.values() if token.content.strip()}
        tokens = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        tokens = tokens or "(?!)"
        return re.compile(f"(?s:.*?)(?P<first>{tokens})(?P<more>{tokens})*")


class _Rendered(NamedTuple):
    """A conversation as a template writes it.

    Attributes:
        parts: of the text: what is given, what is learnt, what is given, and so on.
        ends: whether the last part that is learnt ends with a control token.
    """

    parts: list[str]
    ends: bool

    @staticmethod
    def is_learnt(part: int) -> bool:
        """Whether a part is to be learnt."""
        return part % 2 == 1


def _align(text: str, messages: Sequence[Message], between: Sequence[str]) -> list[Span | None] | None:
    """Find the contents in `text` by what stands between them; None where a template has changed more than spaces."""
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
    """How many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _reason(error: TemplateRefusedError) -> str:
    """The reason for which a conversation is dropped, without the model's name."""
    return str(error).partition(": its ")[2].replace("refuses a conversation", "refuses it") or str(error)
