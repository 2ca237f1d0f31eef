"""The interface of an engine: requests in, completions out as they finish.

Code above this module does not depend on whether vLLM runs in this process, behind a server, or not at all (tests).
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from selfinstruct_local.templates.turns import Role, Turn


class RequestKey(NamedTuple):
    """Identifier of a request within its run: job k, stage of the profile, and j-th request of that stage."""

    job: int
    stage: str
    branch: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters, named as in vLLM's `SamplingParams` and the OpenAI completions API.

    Attributes:
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus sampling probability, in (0, 1].
        max_tokens: maximum number of generated tokens; engines clamp it to the context minus the prompt.
        presence_penalty: in [-2, 2].
        stop: stop strings; they end a completion and are not part of it.
        seed: seed of the request's own random stream; None leaves it to the engine.
        choice: texts of which the completion is one (constrained decoding); empty for free text.
        json_schema: JSON schema that the completion satisfies (constrained decoding); empty for free text.
        regex: regular expression that matches the whole completion (constrained decoding); empty for free text.
        forbid_end: whether the end-of-text token is never sampled.
    """

    temperature: float
    top_p: float
    max_tokens: int
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choice: tuple[str, ...] = ()
    json_schema: str = ""
    regex: str = ""
    forbid_end: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A completion prompt or a conversation.

    Attributes:
        key: identifier.
        prompt: text that the completion continues without a space; with `turns`, the beginning of the generated turn.
        sampling: sampling parameters.
        turns: the conversation so far, to which the model's chat template is applied. If empty, `prompt` is the whole
            input, unless it begins the first user turn.
        role: role of the generated turn: `assistant`, or `user`, which chat models can also write (Magpie, Xu et al.
            2024).
    """

    key: RequestKey
    prompt: str
    sampling: Sampling
    turns: tuple[Turn, ...] = ()
    role: Role = "assistant"


# Finish reasons of completions that ended by themselves or at a stop string, in the OpenAI API and in
# text-generation-inference and similar servers.
STOP_REASONS = frozenset({"stop", "stop_sequence", "eos_token", "eos"})


class FinishReason(StrEnum):
    """Why a completion ended: the OpenAI API's finish reasons and two more.

    `REFUSED` is a prompt that leaves no room for a completion in the model's context: the text is empty.
    """

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    REFUSED = "refused"

    @classmethod
    def told(cls, reason: str | None) -> "FinishReason":
        """Return the finish reason for an engine's own name; unknown names are `ABORT`, so requests are retried."""
        if reason in STOP_REASONS:
            return cls.STOP
        return cls.LENGTH if reason == cls.LENGTH else cls.ABORT


@dataclass(frozen=True, slots=True)
class Completion:
    """The engine's completion of a request.

    Attributes:
        key: key of the request.
        text: generated text, without the stop string.
        finish_reason: why the completion ended.
        prompt_tokens: length of the prompt in tokens.
        completion_tokens: number of generated tokens.
        cached_tokens: prompt tokens found in the engine's prefix cache; None if not reported.
        confidence: mean log-probability of the generated tokens, in nats, at most 0; None if not reported.
        given_up: why an aborted request is not retried; empty for all others.
    """

    key: RequestKey
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    confidence: float | None = None
    given_up: str = ""


class Engine(Protocol):
    """Completes requests, many concurrently."""

    @property
    def description(self) -> dict[str, str]:
        """Names and versions of the engine, for the record of a run."""

    @property
    def capacity(self) -> int:
        """Maximum number of concurrent requests."""

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        """Block until the engine is ready, or until `keep_waiting` returns False.

        Raises:
            UserFacingError: the engine cannot start; the message says why.
        """

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Complete `requests` and yield completions in batches as they finish, in any order.

        The next request is pulled whenever a slot is free, which is after every yielded batch, so a caller may create
        requests from the completions it just received. None means "no request at the moment, pull again after the next
        batch". A batch may be empty: control returns to the caller about every second, and immediately if the source
        yields None with nothing in flight. Closing the generator aborts the requests in flight.

        Raises:
            EngineDeadError: the engine died and could not be restarted; the message says why.
        """

    def close(self) -> None:
        """Free the model's memory and stop the engine's processes."""
