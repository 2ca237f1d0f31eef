"""Token ids of requests: chat templates applied to conversations, with control tokens in data kept as plain text.

A tokenizer converts the text of a control token, such as `<|im_end|>` or `</s>`, to that token anywhere in a text. Only
those that the template writes are control tokens; in seeds and completions they are plain text. transformers is
imported when the first folder is loaded.
"""

import copy
import re
import secrets
import threading
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.templates.turns import Prompt

Message = dict[str, str]  # `role` and `content`, as in chat templates

# Placeholder for a user's content, which is removed again; without spaces, since many templates strip contents.
_USERS_WORDS = "\ue004the-words-of-the-user\ue005"


class TemplateRefusedError(UsageError):
    """Raised if a chat template rejects one conversation; others may work."""


def is_conversation(prompt: Prompt) -> bool:
    """Return whether a request needs the chat template; a generated user turn may be the first of a conversation."""
    return bool(prompt.turns) or prompt.role == "user"


class PromptEncoder:
    """Encodes requests with a model's tokenizer. Not thread-safe."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Set the tokenizer; the chat template is needed only when a conversation is encoded.

        Args:
            tokenizer: a transformers tokenizer, or one of vLLM's own with the same `encode`.
            name: name of the model, for messages.
        """
        self._tokenizer = tokenizer
        self._name = name
        self._control: ControlTokens | None = None

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a request.

        Raises:
            UsageError: the model has no chat template, or the template rejects the conversation.
        """
        if is_conversation(prompt):
            return self._encode_conversation(prompt)
        if not hasattr(self._tokenizer, "split_special_tokens"):
            return list(self._tokenizer.encode(prompt.prompt))  # mistral-common never parses control tokens in text
        ids = self._tokenizer.encode(prompt.prompt, split_special_tokens=True)
        return list(ids[: len(ids) - self._appended])

    @cached_property
    def _appended(self) -> int:
        return count_appended_tokens(self._tokenizer)

    def stop_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the chat template's end-of-turn token for a conversation, else ().

        The files of a base model, or of a model tuned with its template, may name only another `eos_token`.
        """
        if not is_conversation(prompt):
            return ()
        return () if self._turn_end is None else (self._turn_end,)

    @cached_property
    def _turn_end(self) -> int | None:
        from selfinstruct_local.templates.conversation_labels import ConversationEncoder

        return ConversationEncoder(self._tokenizer, self._name).turn_end

    def _encode_conversation(self, prompt: Prompt) -> list[int]:
        check_chat_tokenizer(self._tokenizer, self._name)
        self._control = self._control or ControlTokens(self._tokenizer)
        return self._control.encode(self._render(prompt, self._control))

    def _render(self, prompt: Prompt, control: "ControlTokens") -> str:
        """Return the prompt text of a conversation, with the control tokens in data hidden."""
        messages = [{"role": turn.role, "content": control.hide(turn.content)} for turn in prompt.turns]
        if prompt.role == "assistant":
            text = self._apply_template(messages, add_generation_prompt=True)
        else:
            messages.append({"role": "user", "content": _USERS_WORDS})
            text, *rest = self._apply_template(messages, add_generation_prompt=False).split(_USERS_WORDS)
            if len(rest) != 1:
                message = (
                    f"{self._name}: its chat template does not render a user turn exactly once; name another model"
                )
                raise UsageError(message)
        # A word's token includes the space before it (` What`), so a trailing space would be one too many.
        return text + control.hide(prompt.prompt) if prompt.prompt else text.rstrip(" ")

    def _apply_template(self, messages: list[Message], *, add_generation_prompt: bool) -> str:
        """Return the rendering of the turns; a template that rejects system turns gets them merged into a user turn."""
        try:
            return apply_template(self._tokenizer, self._name, messages, add_generation_prompt=add_generation_prompt)
        except TemplateRefusedError:
            if messages[0]["role"] != "system":
                raise
            return apply_template(
                self._tokenizer, self._name, without_system(messages), add_generation_prompt=add_generation_prompt
            )


def check_chat_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise UsageError if a tokenizer cannot encode conversations.

    Args:
        tokenizer: a transformers tokenizer.
        name: name of the model, for the message.

    Raises:
        UsageError: the tokenizer has no chat template, or is not from the `tokenizers` library.
    """
    if not getattr(tokenizer, "chat_template", None):
        message = f"{name}: has no chat template, which conversations need; name a model tuned for chat"
        raise UsageError(message)
    if not hasattr(tokenizer, "backend_tokenizer"):
        kind = type(tokenizer).__name__
        message = f"{name}: its tokenizer ({kind}) has no tokenizer.json, which conversations need; name another model"
        raise UsageError(message)


def apply_template(tokenizer: Any, name: str, messages: list[Message], *, add_generation_prompt: bool) -> str:
    """Return the chat template's rendering of `messages`.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        name: name of the model, for the message.
        messages: the conversation.
        add_generation_prompt: whether to append the header of the assistant's next turn.

    Raises:
        TemplateRefusedError: the template raises an error for this conversation.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    # For an empty list, transformers and several chat templates access the first message.
    except (TemplateError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        message = f"{name}: its chat template rejects a conversation: {reason}"
        raise TemplateRefusedError(message) from error


def count_appended_tokens(tokenizer: Any) -> int:
    """Return how many tokens a transformers tokenizer appends to every text, such as `</s>` with `add_eos_token`."""
    text = "a"
    bare = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.encode(text)
    starts = (at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare)
    return len(whole) - len(bare) - next(starts, len(whole) - len(bare))


def without_system(messages: list[Message]) -> list[Message]:
    """Return the turns with the system text prepended to the first user turn, as models without system turns expect.

    If the only user turn is the one to generate, the system text is omitted: it would be the beginning of that turn.
    """
    system, *rest = messages
    for at, turn in enumerate(rest):
        if turn["role"] == "user" and turn["content"] != _USERS_WORDS:
            return [*rest[:at], {**turn, "content": f"{system['content']}\n\n{turn['content']}"}, *rest[at + 1 :]]
    return rest


class EncodedParts(NamedTuple):
    """The tokens of a text that was given in parts.

    Attributes:
        ids: token ids.
        offsets: start and end of each token, in characters.
        borders: start of each part and end of the last one, in characters; one more than the number of parts.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    borders: list[int]


class ControlTokens:
    """A copy of the tokenizer that recognises control tokens only under secret names.

    Template and data are encoded together as one text. Encoding them piece by piece would add the space that many
    tokenizers put before a text, and would split tokens that cross a boundary. A secret name has the same flags as its
    token, so that tokens that strip the spaces around them still do.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import AddedToken
        from tokenizers.processors import TemplateProcessing

        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.encode_special_tokens = True  # the library's option to encode them as text
        self._backend.no_truncation()
        self._backend.no_padding()
        # No special tokens are added here; GPT-2's post-processor would exclude spaces from the token offsets.
        self._backend.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
        # Data cannot contain this random string.
        nonce = secrets.token_hex(8)
        self._hidden: dict[str, str] = {}
        self._secret: dict[str, str] = {}
        self._ids: dict[int, int] = {}
        for token_id, token in tokenizer.added_tokens_decoder.items():
            if not token.special:
                continue
            self._hidden[token.content] = f"\ue000{nonce}.{token_id}\ue001"
            secret = self._secret[token.content] = f"\ue002{nonce}.{token_id}\ue003"
            flags = {flag: getattr(token, flag) for flag in ("single_word", "lstrip", "rstrip", "normalized")}
            self._backend.add_tokens([AddedToken(secret, special=False, **flags)])
            self._ids[self._backend.token_to_id(secret)] = token_id
        self._shown = {hidden: content for content, hidden in self._hidden.items()}

    def hide(self, data: str) -> str:
        """Return data with its control tokens replaced by names that `encode` converts back to plain text."""
        return _replace(data, self._hidden)

    def encode(self, rendered: str) -> list[int]:
        """Return the token ids of a template's rendering of hidden data."""
        return self.encode_parts([[rendered]])[0].ids

    def encode_parts(self, texts: Sequence[Sequence[str]]) -> list[EncodedParts]:
        """Return tokens, offsets and part borders of several texts, each given in parts.

        Args:
            texts: renderings of hidden data, split anywhere except for inside a hidden token.
        """
        shown = [[_replace(_replace(part, self._secret), self._shown) for part in parts] for parts in texts]
        encodings = self._backend.encode_batch(["".join(parts) for parts in shown], add_special_tokens=False)
        return [
            EncodedParts(
                [self._ids.get(each, each) for each in encoding.ids],
                encoding.offsets,
                [0, *accumulate(len(part) for part in parts)],
            )
            for encoding, parts in zip(encodings, shown, strict=True)
        ]


def _replace(text: str, by: dict[str, str]) -> str:
    if not by:
        return text
    longest_first = sorted(by, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: by[found[0]], text)


class FolderEncoder:
    """The `PromptEncoder` of a model folder, loaded on first use. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Set the model folder; no file is read yet."""
        self._folder = folder
        self._lock = threading.Lock()

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a request (see `PromptEncoder.encode`).

        Raises:
            UsageError: as `PromptEncoder.encode`, or the folder's tokenizer cannot be loaded.
        """
        with self._lock:  # tokenizers keep state between calls, and two threads would both load the tokenizer
            return self._loaded.encode(prompt)

    def stop_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the end-of-turn token of a conversation (see `PromptEncoder.stop_tokens`); raises as `encode` does."""
        with self._lock:
            return self._loaded.stop_tokens(prompt)

    def holds_control_text(self, prompt: str) -> bool:
        """Return whether a server would parse control tokens in a prompt or append one; then token ids are sent."""
        return self._ends_every_text or self._control_text.search(prompt) is not None

    @cached_property
    def _ends_every_text(self) -> bool:
        """Whether the tokenizer appends a token to every text, according to its files; no tokenizer is loaded."""
        if _read(self._folder / "tokenizer_config.json").get("add_eos_token"):
            return True
        outer = _read(self._folder / "tokenizer.json").get("post_processor") or {}
        templates = [each["single"] for each in outer.get("processors", [outer]) if each.get("single")]
        return any("SpecialToken" in template[-1] for template in templates)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text (see `end_token_ids`).

        Raises:
            UsageError: the folder names none.
        """
        found = end_token_ids(self._folder)
        if not found:
            message = (
                f"{self._folder}: its files name no eos_token_id, which this profile suppresses; add it to config.json"
            )
            raise UsageError(message)
        return tuple(found)

    @cached_property
    def _control_text(self) -> re.Pattern[str]:
        added = _read(self._folder / "tokenizer.json").get("added_tokens", [])
        contents = [re.escape(each["content"]) for each in added if each.get("special")]
        return re.compile("|".join(contents) or "(?!)")

    @cached_property
    def _loaded(self) -> PromptEncoder:
        try:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)
        except Exception as error:  # transformers and its Rust library also raise bare ones
            reason = str(error).strip().partition("\n")[0]
            message = (
                f"{self._folder}: its tokenizer cannot be loaded ({type(error).__name__}: {reason}); copy its files "
                "again"
            )
            raise UsageError(message) from error
        return PromptEncoder(tokenizer, self._folder.name)


def end_token_ids(folder: Path) -> list[int]:
    """Return the sorted ids of the end tokens that the files of a model folder name; does not import transformers."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        told = _read(folder / name).get("eos_token_id")
        found.update(each for each in (told if isinstance(told, list) else [told]) if isinstance(each, int))
    token = _read(folder / "tokenizer_config.json").get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None:
        added = _read(folder / "tokenizer.json").get("added_tokens", [])
        found.update(each["id"] for each in added if each["content"] == text)
    return sorted(found)


def _read(path: Path) -> dict[str, Any]:
    told = orjson.loads(path.read_bytes()) if path.exists() else {}
    return told if isinstance(told, dict) else {}
