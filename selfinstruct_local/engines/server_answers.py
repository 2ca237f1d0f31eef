"""What servers answer, checked in one place: a record of ours, or one error that names the field and what it holds.

Nothing that a server says gets past this module unchecked: numbers are in range, texts are texts, and no words of a
server that are meant for the user repeat the key.
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
MAX_TOKENS = 2**31 - 1  # more than any context has, and few enough that a run's database can sum them
MAX_PAUSE = 3600.0
_MAX_SAID = 300
_MAX_SHOWN = 80
# The logarithm of a probability, with room for rounding and for servers that write -9999 for none.
_LOGPROBS = (-1e9, 0.01)
_TEXT_PARTS = frozenset({"text", "output_text"})

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class OddAnswerError(UnreachableError):
    """An answer with a field that cannot be used; the text names the field and what it holds."""


class Written(NamedTuple):
    """A completion as a server tells it.

    Attributes:
        text: what was written.
        finish_reason: the server's word for why it ended; None if it has none.
        prompt_tokens: length of the prompt in tokens, 0 if it is not told.
        completion_tokens: tokens written, 0 if it is not told.
        cached_tokens: tokens of the prompt from the prefix cache; None if it is not told.
        confidence: mean log-probability of its tokens, in nats; None if it is not told.
        left_out: kinds of parts of the message that are no text of the answer, such as `thinking`.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    confidence: float | None
    left_out: tuple[str, ...] = ()


class AnswerReader:
    """Reads the answers of servers that get a key."""

    def __init__(self, api_key: str | None) -> None:
        """Takes the key, to keep it out of all texts."""
        self._api_key = api_key

    def completion(self, answer: Answer, *, by_chat: bool) -> Written:
        """Return the first completion of an answer of status 200.

        Raises:
            OddAnswerError: it holds none, or one with a field that cannot be used.
        """
        told = self._parse(answer)
        if "choices" not in told and "error" in told:
            message = f"answers {HTTP_OK} with an error{self.error(answer)}"
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
        """Return the names in a list of models, each with its context in tokens where that is told.

        Raises:
            UnreachableError: this is no list of models.
        """
        if answer.status != HTTP_OK:
            message = f"answers {answer.status_line} when asked for its models"
            raise UnreachableError(message)
        found = self._validated(_ModelList, self._parse(answer)).data
        for place, each in enumerate(found):
            if without_key(each.id, self._api_key) != each.id:
                message = f"data[{place}].id repeats the key"
                raise OddAnswerError(message)
        return {each.id: each.max_model_len for each in found}

    def prompt_length(self, answer: Answer) -> tuple[int, int | None] | None:
        """Return tokens of a prompt and of the model's context if that is told; None if it is no answer of vLLM's.

        Raises:
            OddAnswerError: it has a field that cannot be used.
        """
        if answer.status != HTTP_OK:
            return None
        told = self._parse(answer)
        if "count" not in told:
            return None
        read = self._validated(_Length, told)
        return read.count, read.max_model_len

    def pause(self, answer: Answer) -> float | None:
        """Return the seconds that a server asks to be left alone, in [0, `MAX_PAUSE`]; None if it does not ask.

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
                message = f"Retry-After holds {self._shown(told)} (should be seconds or a date)"
                raise OddAnswerError(message) from error
        return min(max(seconds, 0.0), MAX_PAUSE)

    def error(self, answer: Answer) -> str:
        """Return the message of an error after a colon, in one line: the common shapes first, else the body."""
        said: Any = answer.text
        with contextlib.suppress(ValueError, AttributeError):  # no JSON object: the body is what it says
            told = orjson.loads(answer.content)
            error = told.get("error", told)
            said = error.get("message") or error.get("detail") or said if isinstance(error, dict) else error
        line = self.words(" ".join(str(said).split()))
        return f": {line}" if line else ""

    def words(self, text: str) -> str:
        """Return words of a server as they may be shown."""
        return without_key(text, self._api_key)[:_MAX_SAID]

    def _parse(self, answer: Answer) -> dict[str, Any]:
        try:
            told = orjson.loads(answer.content)
        except ValueError as error:
            message = f"answers no JSON but {self._shown(answer.text)}"
            raise OddAnswerError(message) from error
        if not isinstance(told, dict):
            message = f"answers no JSON object but {self._shown(told)}"
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
                message = f"{path} holds {self._shown(first['input'])} ({wish})"
            raise OddAnswerError(message) from error

    def _shown(self, told: Any) -> str:
        text = without_key(orjson.dumps(told).decode(), self._api_key)
        return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


# The shapes of answers. Fields that nothing is made of may hold anything.


def _whole(told: Any) -> Any:
    """Some languages write a whole number with a decimal point."""
    return int(told) if isinstance(told, float) and told.is_integer() else told


def _mean_logprob(told: Any) -> float | None:
    """Return the mean log-probability of the drawn tokens in either route's form, or None where neither is told."""
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
            message = f"should hold log-probabilities, not {orjson.dumps(logprob).decode()[:_MAX_SHOWN]}"
            raise ValueError(message)
    return min(sum(drawn) / len(drawn), 0.0) if drawn else None


class _Content(NamedTuple):
    text: str
    left_out: tuple[str, ...] = ()


def _content(told: Any) -> _Content:
    """Return the text of a message: a text, none, or a list of parts, of which those with text are joined."""
    if told is None or isinstance(told, str):
        return _Content(told or "")
    if not isinstance(told, list):
        message = "should be a text or a list of parts"
        raise ValueError(message)  # noqa: TRY004 - what pydantic takes for a wrong value
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
