"""The interface of an engine: requests in, completions out as they finish.

Nothing above this module knows whether vLLM runs in this process, behind a server, or not at all (tests).
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from selfinstruct_local.templates.turns import Role, Turn


class RequestKey(NamedTuple):
    """Names a request within its run: job k, the stage of its profile, and the j-th request of that stage."""

    job: int
    stage: str
    branch: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn, in the terms of vLLM's `SamplingParams` and the OpenAI completions API.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus share in (0, 1].
        max_tokens: the most tokens to write; engines clamp it to the context less the prompt.
        presence_penalty: in [-2, 2].
        stop: texts that end a completion; they are not part of it.
        seed: of this request's own random stream; None leaves it to the engine.
        choice: the completion is one of these texts (constrained decoding); empty for free text.
        json_schema: the completion is JSON that obeys this JSON schema (constrained decoding); empty for free text.
        regex: the completion is a text that it matches as a whole (constrained decoding); empty for free text.
        forbid_end: the end-of-text token is never drawn.
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
    """A text to go on from, or a conversation.

    Attributes:
        key: names it.
        prompt: what the completion follows, without a space; with `turns` the beginning of the turn that is written.
        sampling: how tokens are drawn.
        turns: the conversation so far; the model's chat template is put around them. Empty: `prompt` is all there is,
            unless it begins the first turn of a user.
        role: whose turn is written: `assistant`, or `user`, whom chat models can play too (Magpie, Xu et al. 2024).
    """

    key: RequestKey
    prompt: str
    sampling: Sampling
    turns: tuple[Turn, ...] = ()
    role: Role = "assistant"


# That a text came to its end or to a stop text, as the OpenAI API says it, and text-generation-inference and its like.
STOP_REASONS = frozenset({"stop", "stop_sequence", "eos_token", "eos"})


class FinishReason(StrEnum):
    """Why a completion ended, in the terms of the OpenAI API, and two of our own.

    `REFUSED` is a prompt that leaves no room for an answer in the model's context: the text is empty.
    """

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    REFUSED = "refused"

    @classmethod
    def told(cls, reason: str | None) -> "FinishReason":
        """What an engine's own word means; one that nobody knows is an abort: the request may be asked again."""
        if reason in STOP_REASONS:
            return cls.STOP
        return cls.LENGTH if reason == cls.LENGTH else cls.ABORT


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine wrote for a request.

    Attributes:
        key: of the request.
        text: without the stop text.
        finish_reason: why it ended.
        prompt_tokens: length of the prompt in tokens.
        completion_tokens: tokens written.
        cached_tokens: tokens of the prompt that the engine's prefix cache held already; None if it does not tell.
        confidence: mean log-probability of its tokens under the model, in nats, at most 0; None if it does not tell.
        given_up: why the request is not to be asked again, though it was aborted; empty for all others.
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
    """Answers requests, many at a time."""

    @property
    def description(self) -> dict[str, str]:
        """What answers: names and versions for the record of a run."""

    @property
    def capacity(self) -> int:
        """Requests it works on at a time."""

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        """Returns when it can answer, or as soon as `keep_waiting` says no.

        Raises:
            UserFacingError: it cannot start, and why.
        """

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Answers `requests` and yields completions in batches as they finish, in any order.

        The next request is pulled whenever a slot is free, which is after every batch handed out, so a
        caller may make requests out of what it just received. None means "no request at the moment, ask
        again after the next batch". A batch may be empty: the caller gets its turn at least every second or so,
        and at once when None came with nothing in flight. Closing the generator aborts what is in flight.

        Raises:
            EngineDeadError: the engine died and did not come back; the text says why.
        """

    def close(self) -> None:
        """Frees the model's memory and ends the engine's processes."""
