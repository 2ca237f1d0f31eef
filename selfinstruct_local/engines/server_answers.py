"""Validate the responses of servers: return checked values, or raise one error that names the field and its value.

All data of servers passes through this module: numbers are in range, texts are strings, and server messages shown to
the user never contain the key.
"""

import contextlib
import email.utils
import re
import time
from typing import Annotated, Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from selfinstruct_local.engines.http_clients import Answer, UnreachableError
from selfinstruct_local.engines.keys import without_key

HTTP_OK = 200
MAX_TOKENS = 2**31 - 1  # larger than any context, and small enough to be summed in a run's database
MAX_PAUSE = 3600.0
_MAX_SAID = 300
_MAX_SHOWN = 80
# Range of log-probabilities, with a margin for rounding and for servers that write -9999 for a missing one.
_LOGPROBS = (-1e9, 0.01)
_TEXT_PARTS = frozenset({"text", "output_text"})

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class OddAnswerError(UnreachableError):
    """An invalid response; the message names the field and its value."""


class Written(NamedTuple):
    """A completion as reported by a server.

    Attributes:
        text: generated text.
        finish_reason: the server's finish reason; None if not reported.
        prompt_tokens: length of the prompt in tokens; 0 if not reported.
        completion_tokens: number of generated tokens; 0 if not reported.
        cached_tokens: prompt tokens found in the prefix cache; None if not reported.
        confidence: mean log-probability of the generated tokens, in nats; None if not reported.
        left_out: types of message parts that are not text of the completion, such as `thinking`.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    confidence: float | None
    left_out: tuple[str, ...] = ()


class AnswerReader:
    """Parser for server responses that keeps the API key out of all texts."""

    def __init__(self, api_key: str | None) -> None:
        """Store the key that is sent to the servers."""
        self._api_key = api_key

    def completion(self, answer: Answer, *, by_chat: bool) -> Written:
        """Return the first completion of a response with status 200.

        Raises:
            OddAnswerError: there is no completion, or one of its fields is invalid.
        """
        told = self._parse(answer)
        if "choices" not in told and "error" in told:
            message = f"status {HTTP_OK} with an error{self.error(answer)}"
            raise OddAnswerError(message)
        read: _ChatAnswer | _TextAnswer
        read = self._validated(_ChatAnswer, told) if by_chat else self._validated(_TextAnswer, told)
        choice = read.choices[0]
        content = choice.message.content if isinstance(choice, _ChatChoice) else _Content(choice.text or "")
        usage = read.usage or _Usage()
        return Written(
            text=content.text,
            finish_reason=choice.finish_reason,
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
            confidence=choice.logprobs,
            left_out=content.left_out,
        )

    def models(self, answer: Answer) -> dict[str, int | None]:
        """Return the model names in a model list, each with its context length in tokens, or None if not reported.

        Raises:
            UnreachableError: the response is not a model list.
        """
        if answer.status != HTTP_OK:
            message = f"status {answer.status_line} for the list of models"
            raise UnreachableError(message)
        found = self._validated(_ModelList, self._parse(answer)).data
        for place, each in enumerate(found):
            if without_key(each.id, self._api_key) != each.id:
                message = f"data[{place}].id contains the key"
                raise OddAnswerError(message)
        return {each.id: each.max_model_len for each in found}

    def prompt_length(self, answer: Answer) -> tuple[int, int | None] | None:
        """Return the tokens of a prompt and the model's context length, if reported; None if the server is not vLLM.

        Raises:
            OddAnswerError: a field is invalid.
        """
        if answer.status != HTTP_OK:
            return None
        told = self._parse(answer)
        if "count" not in told:
            return None
        read = self._validated(_Length, told)
        return read.count, read.max_model_len

    def pause(self, answer: Answer) -> float | None:
        """Return the seconds of the Retry-After header, clamped to [0, `MAX_PAUSE`]; None without the header.

        Raises:
            OddAnswerError: Retry-After is neither a number nor a date.
        """
        told = answer.headers.get("Retry-After")
        if told is None:
            return None
        if re.fullmatch(r"[0-9]+(\.[0-9]*)?", told.strip()):
            seconds = float(told)
        else:
            try:
                seconds = email.utils.parsedate_to_datetime(told).timestamp() - time.time()
            except (ValueError, OverflowError, OSError) as error:
                message = f"Retry-After is {self._shown(told)} (should be seconds or a date)"
                raise OddAnswerError(message) from error
        return min(max(seconds, 0.0), MAX_PAUSE)

    def error(self, answer: Answer) -> str:
        """Return a response's error message on one line, after a colon: from the usual fields, or the whole body."""
        said: Any = answer.text
        with contextlib.suppress(ValueError, AttributeError):  # not a JSON object: use the body
            told = orjson.loads(answer.content)
            error = told.get("error", told)
            said = error.get("message") or error.get("detail") or said if isinstance(error, dict) else error
        line = self.words(" ".join(str(said).split()))
        return f": {line}" if line else ""

    def words(self, text: str) -> str:
        """Return a server's text, shortened and with the key redacted, for a message."""
        return without_key(text, self._api_key)[:_MAX_SAID]

    def _parse(self, answer: Answer) -> dict[str, Any]:
        try:
            told = orjson.loads(answer.content)
        except ValueError as error:
            message = f"the response is not JSON but {self._shown(answer.text)}"
            raise OddAnswerError(message) from error
        if not isinstance(told, dict):
            message = f"the response is not a JSON object but {self._shown(told)}"
            raise OddAnswerError(message)
        return told

    def _validated(self, shape: type[AnswerT], told: dict[str, Any]) -> AnswerT:
        try:
            return shape.model_validate(told)
        except ValidationError as error:
            first = error.errors()[0]
            path = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in first["loc"])[1:]
            if first["type"] == "missing":
                message = f"{path} is missing"
            else:
                wish = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
                message = f"{path} is {self._shown(first['input'])} ({wish})"
            raise OddAnswerError(message) from error

    def _shown(self, told: Any) -> str:
        text = without_key(orjson.dumps(told).decode(), self._api_key)
        return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


# Schemas of responses. Unused fields may contain anything.


def _whole(told: Any) -> Any:
    """Return an integral float as an int, because some languages write whole numbers with a decimal point."""
    return int(told) if isinstance(told, float) and told.is_integer() else told


def _mean_logprob(told: Any) -> float | None:
    """Return the mean log-probability of the sampled tokens, in either route's format; None if not reported."""
    if not isinstance(told, dict):
        return None
    each = told.get("token_logprobs")
    content = told.get("content")
    if not each and isinstance(content, list):
        each = [token.get("logprob") if isinstance(token, dict) else token for token in content]
    if not isinstance(each, list):
        return None
    drawn = [logprob for logprob in each if logprob is not None]
    least, most = _LOGPROBS
    for logprob in drawn:
        if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or not least <= logprob <= most:
            message = f"should contain log-probabilities, not {orjson.dumps(logprob).decode()[:_MAX_SHOWN]}"
            raise ValueError(message)
    return min(sum(drawn) / len(drawn), 0.0) if drawn else None


class _Content(NamedTuple):
    text: str
    left_out: tuple[str, ...] = ()


def _content(told: Any) -> _Content:
    """Return the text of a message: a string, null, or a list of parts, whose text parts are joined."""
    if told is None or isinstance(told, str):
        return _Content(told or "")
    if not isinstance(told, list):
        message = "should be a string or a list of parts"
        raise ValueError(message)  # noqa: TRY004 - pydantic reports a ValueError as an invalid value
    texts: list[str] = []
    left_out: list[str] = []
    for part in told:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(kind, str) or (kind in _TEXT_PARTS and not isinstance(text, str)):
            message = "should be a list of parts with texts"
            raise ValueError(message)
        if kind in _TEXT_PARTS:
            texts.append(str(text))
        else:
            left_out.append(kind)
    return _Content("".join(texts), tuple(dict.fromkeys(left_out)))


_Tokens = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MAX_TOKENS)]
_Context = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_TOKENS)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _CachedTokens(_Shape):
    cached_tokens: _Tokens | None = None


class _Usage(_Shape):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _CachedTokens | None = None


class _Choice(_Shape):
    finish_reason: str | None = None
    logprobs: Annotated[float | None, PlainValidator(_mean_logprob)] = None


class _TextChoice(_Choice):
    text: str | None


class _Message(_Shape):
    content: Annotated[_Content, PlainValidator(_content)]


class _ChatChoice(_Choice):
    message: _Message


class _TextAnswer(_Shape):
    choices: Annotated[list[_TextChoice], Field(min_length=1)]
    usage: _Usage | None = None


class _ChatAnswer(_Shape):
    choices: Annotated[list[_ChatChoice], Field(min_length=1)]
    usage: _Usage | None = None


class _Model(_Shape):
    id: str
    max_model_len: _Context | None = None


class _ModelList(_Shape):
    data: list[_Model]


class _Length(_Shape):
    count: _Tokens
    max_model_len: _Context | None = None
