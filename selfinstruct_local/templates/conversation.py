"""Requests as token ids: the model's chat template around conversations, and data that stays data.

A tokenizer reads the text of a control token, such as `<|im_end|>` or `</s>`, as that token wherever it stands. Only
those that the template writes are meant so; in seeds and answers they are text. Leans on transformers' tokenizers,
which are imported when the first folder is loaded.
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

Message = dict[str, str]  # `role` and `content`, as chat templates take them

# Stands for what a user will say, to be cut away; without spaces, since many templates strip what they are given.
_USERS_WORDS = "\ue004the-words-of-the-user\ue005"


class TemplateRefusedError(UsageError):
    """A chat template refuses one conversation; it may well take the next."""


def is_conversation(prompt: Prompt) -> bool:
    """Whether the chat template goes around a request; a user's turn may be the first of its conversation."""
    return bool(prompt.turns) or prompt.role == "user"


class PromptEncoder:
    """Encodes requests with a model's tokenizer; for one thread."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Asks nothing of the template before a conversation comes.

        Args:
            tokenizer: of transformers, or one of vLLM's own that has its `encode`.
            name: of the model, for errors.
        """
        self._tokenizer = tokenizer
        self._name = name
        self._control: ControlTokens | None = None

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that the completion follows.

        Raises:
            UsageError: the model has no chat template, or it refuses the conversation.
        """
        if is_conversation(prompt):
            return self._encode_conversation(prompt)
        if not hasattr(self._tokenizer, "split_special_tokens"):
            return list(self._tokenizer.encode(prompt.prompt))  # mistral-common's never reads control tokens from text
        ids = self._tokenizer.encode(prompt.prompt, split_special_tokens=True)
        return list(ids[: len(ids) - self._appended])

    @cached_property
    def _appended(self) -> int:
        return count_appended_tokens(self._tokenizer)

    def stop_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token that ends a turn by the chat template, for a conversation; else none.

        Of a base model, or one that was tuned to its template, the files may name another `eos_token` only.
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
        """The text that the completion follows, with the control tokens of the data hidden."""
        messages = [{"role": turn.role, "content": control.hide(turn.content)} for turn in prompt.turns]
        if prompt.role == "assistant":
            text = self._apply_template(messages, add_generation_prompt=True)
        else:
            messages.append({"role": "user", "content": _USERS_WORDS})
            text, *rest = self._apply_template(messages, add_generation_prompt=False).split(_USERS_WORDS)
            if len(rest) != 1:
                message = f"{self._name}: its chat template does not show where a user's turn begins"
                raise UsageError(message)
        # Words bring their space with them (` What` is one token), so a space before them would be one too many.
        return text + control.hide(prompt.prompt) if prompt.prompt else text.rstrip(" ")

    def _apply_template(self, messages: list[Message], *, add_generation_prompt: bool) -> str:
        """What the template makes of the turns; of one that refuses a system turn, what it makes of them without."""
        try:
            return apply_template(self._tokenizer, self._name, messages, add_generation_prompt=add_generation_prompt)
        except TemplateRefusedError:
            if messages[0]["role"] != "system":
                raise
            return apply_template(
                self._tokenizer, self._name, without_system(messages), add_generation_prompt=add_generation_prompt
            )


def check_chat_tokenizer(tokenizer: Any, name: str) -> None:
    """Checks that conversations can be encoded.

    Args:
        tokenizer: of transformers.
        name: of the model, for the error.

    Raises:
        UsageError: the tokenizer has no chat template, or is not one of the `tokenizers` library.
    """
    if not getattr(tokenizer, "chat_template", None):
        message = f"{name}: has no chat template, which conversations need; name a model tuned for chat"
        raise UsageError(message)
    if not hasattr(tokenizer, "backend_tokenizer"):
        kind = type(tokenizer).__name__
        message = f"{name}: its tokenizer ({kind}) has no tokenizer.json, which conversations need"
        raise UsageError(message)


def apply_template(tokenizer: Any, name: str, messages: list[Message], *, add_generation_prompt: bool) -> str:
    """Return the text that the chat template makes of `messages`.

    Args:
        tokenizer: of transformers, with a chat template.
        name: of the model, for the error.
        messages: the conversation.
        add_generation_prompt: whether the header of the assistant's next turn follows.

    Raises:
        TemplateRefusedError: the template raises an error for this conversation.
    """
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    # Of an empty list, transformers asks for the first message; the templates of several models do too.
    except (TemplateError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        message = f"{name}: its chat template refuses a conversation: {reason}"
        raise TemplateRefusedError(message) from error


def count_appended_tokens(tokenizer: Any) -> int:
    """Return how many tokens a transformers tokenizer puts behind every text, such as `</s>` with `add_eos_token`."""
    text = "a"
    bare = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.encode(text)
    starts = (at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare)
    return len(whole) - len(bare) - next(starts, len(whole) - len(bare))


def without_system(messages: list[Message]) -> list[Message]:
    """The turns with the system's text before that of the first user, as models without a system turn are tuned.

    It is left out where the only user's turn is the one to be written: what stands before that is its beginning.
    """
    system, *rest = messages
    for at, turn in enumerate(rest):
        if turn["role"] == "user" and turn["content"] != _USERS_WORDS:
            return [*rest[:at], {**turn, "content": f"{system['content']}\n\n{turn['content']}"}, *rest[at + 1 :]]
    return rest


class EncodedParts(NamedTuple):
    """A text as tokens.

    Attributes:
        ids: of the tokens.
        offsets: the characters of each token, from and up to.
        borders: where each part begins and the last one ends, in the same characters; one more than there are parts.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    borders: list[int]


class ControlTokens:
    """A copy of the tokenizer in which control tokens are read under secret names alone.

    Text between control tokens is encoded as ever, in one go: encoding template and data piece by piece would add
    the space that many tokenizers put before a text, and part tokens that reach over a seam. A token's secret name has
    the same flags as the token, so that those that swallow the spaces around them still do.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import AddedToken
        from tokenizers.processors import TemplateProcessing

        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.encode_special_tokens = True  # "as text", in the words of the library
        self._backend.no_truncation()
        self._backend.no_padding()
        # No special tokens are added here; GPT-2's post-processor would take the spaces from the tokens' offsets.
        self._backend.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
        # Text that has this in it cannot have come from outside.
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
        """Data for a template, in which what it holds of control tokens will be known again."""
        return _replace(data, self._hidden)

    def encode(self, rendered: str) -> list[int]:
        """Token ids of what a template made of hidden data."""
        return self.encode_parts([[rendered]])[0].ids

    def encode_parts(self, texts: Sequence[Sequence[str]]) -> list[EncodedParts]:
        """Encode several texts at once, each given in parts whose borders are to be found again among its tokens.

        Args:
            texts: what a template made of hidden data, cut anywhere but inside a hidden token.
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
    """The `PromptEncoder` of a model folder, loaded when it is first needed; for many threads."""

    def __init__(self, folder: Path) -> None:
        """Reads nothing yet."""
        self._folder = folder
        self._lock = threading.Lock()

    def encode(self, prompt: Prompt) -> list[int]:
        """See `PromptEncoder.encode`.

        Raises:
            UsageError: also when the folder's tokenizer cannot be loaded.
        """
        with self._lock:  # tokenizers keep settings between calls, and two loads would cost twice the seconds
            return self._loaded.encode(prompt)

    def stop_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """See `PromptEncoder.stop_tokens`; raises as `encode` does."""
        with self._lock:
            return self._loaded.stop_tokens(prompt)

    def holds_control_text(self, prompt: str) -> bool:
        """Whether a server would read control tokens from a prompt or add one behind it; it is sent token ids then."""
        return self._ends_every_text or self._control_text.search(prompt) is not None

    @cached_property
    def _ends_every_text(self) -> bool:
        """See `count_appended_tokens`, as far as the files tell without loading a tokenizer."""
        if _read(self._folder / "tokenizer_config.json").get("add_eos_token"):
            return True
        outer = _read(self._folder / "tokenizer.json").get("post_processor") or {}
        templates = [each["single"] for each in outer.get("processors", [outer]) if each.get("single")]
        return any("SpecialToken" in template[-1] for template in templates)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """See `end_token_ids`.

        Raises:
            UsageError: the folder names none.
        """
        found = end_token_ids(self._folder)
        if not found:
            message = f"{self._folder}: its files name no eos_token_id, the token that this profile forbids to draw"
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
        except Exception as error:  # transformers and its Rust library raise bare ones too
            reason = str(error).strip().partition("\n")[0]
            message = f"{self._folder}: its tokenizer cannot be loaded ({type(error).__name__}: {reason})"
            raise UsageError(message) from error
        return PromptEncoder(tokenizer, self._folder.name)


def end_token_ids(folder: Path) -> list[int]:
    """The tokens that end a text, as the files of a model folder name them, sorted; transformers is not imported."""
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
