"""One request to OpenAI-compatible servers, until it has its completion: what is sent, and what the answers mean."""

import asyncio
import contextlib
import email.utils
import re
import time
from typing import Any

import httpx
import orjson

from selfinstruct_local.engine.base import Completion, FinishReason, Request
from selfinstruct_local.engine.conversation import FolderEncoder, is_conversation
from selfinstruct_local.engine.model_lists import (
    HTTP_OK,
    LOG,
    REFUSED_KEY,
    UnreachableError,
    describe,
    wrong_key,
)
from selfinstruct_local.engine.request_bodies import Question
from selfinstruct_local.engine.server_pool import Server, ServerPool, TroubleError
from selfinstruct_local.errors import EngineDeadError

# A request that brings down or confuses every server that takes it, while others are answered, is given up after that
# many. Where nothing is answered it is the servers that fail, and the pool says for how long that may go on.
MOST_TRIES = 8

WRONG_REQUEST = frozenset({400, 422})
MISSING_ROUTE = frozenset({404, 405, 501})
TOO_MANY_REQUESTS = 429
PASSING = frozenset({408, 409, 425})
SERVER_ERROR = 500

# How servers say that prompt and answer do not fit: vLLM and SGLang, OpenAI, llama.cpp, TGI.
_CONTEXT_EXCEEDED = re.compile(r"context|max_model_len|max_(new_)?tokens|too long|too many tokens", re.IGNORECASE)
# A token is at least one byte of the text; a few special ones may stand around it.
_SPECIAL_TOKENS = 8
_MOST_SAID = 300


class CompletionCalls:
    """Asks the servers of a pool for completions."""

    def __init__(
        self,
        pool: ServerPool,
        model: str,
        *,
        max_model_len: int,
        request_seconds: float,
        encoder: FolderEncoder | None = None,
    ) -> None:
        """Asks nothing yet.

        Args:
            pool: the servers.
            model: the name they serve.
            max_model_len: context in tokens, prompt and answer together, however much more a server has.
            request_seconds: time-out of one try.
            encoder: of the model's folder, when that is known here.
        """
        self._pool = pool
        self._model = model
        self._max_model_len = max_model_len
        self._request_seconds = request_seconds
        self._encoder = encoder
        self._tell_no_logprobs: set[str] = set()
        self._tell_odd_reasons: set[str] = set()

    async def complete(self, request: Request) -> Completion:
        """The completion of a request; an aborted one when it failed too often while others were answered, or alone.

        Raises:
            EngineDeadError: a server refuses the request or the key, and would refuse all others.
            WrongUseError: the request needs the model's files, and they are not known here or do not serve.
        """
        if self._encoder is None:
            question = Question.of(request, None)
        else:  # reads files, and encodes
            question = await asyncio.to_thread(Question.of, request, self._encoder)
        with self._pool.under_way(request.key):
            return await self._ask_until_answered(request, question)

    async def _ask_until_answered(self, request: Request, question: Question) -> Completion:
        now = asyncio.get_running_loop().time
        tries, counted_at = 0, now()
        while tries < MOST_TRIES:
            server = await self._pool.take()
            sent_at = now()
            try:
                completion = await self._try(server, question)
            except TroubleError as trouble:
                self._pool.struck(server, trouble, sent_at)
                if trouble.counts and self._pool.answered_at > counted_at:
                    tries, counted_at = tries + 1, now()
                elif trouble.counts and self._pool.is_at_fault(request.key):
                    break
            else:
                self._pool.answered(server, sent_at)
                return completion
            finally:
                server.load -= 1
        LOG.info("request %s given up: no server can answer it", "/".join(map(str, request.key)))
        return Completion(request.key, "", FinishReason.ABORT, 0, 0)

    async def _try(self, server: Server, question: Question) -> Completion:
        try:
            async with asyncio.timeout(self._request_seconds):
                return await self._ask(server, question)
        except TimeoutError:
            reason = f"no answer in {self._request_seconds:g} s"
            raise TroubleError(reason, lost=True, silent=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise TroubleError(describe(error), counts=False, lost=True) from error
        except httpx.RequestError as error:
            raise TroubleError(describe(error), lost=True) from error

    async def _ask(self, server: Server, question: Question) -> Completion:
        """One try on one server, with as many calls as it takes to find the right route, length and fields."""
        request = question.request
        count = await self._count(server, question) if self._may_overrun(server, question) else None
        while True:
            room = self._limit(server) - (count or 0)
            if room < 1:
                return _refusal(request, count)
            by_chat = question.by_chat(server)
            route = "chat/completions" if by_chat else "completions"
            with_logprobs = server.url not in self._tell_no_logprobs
            body = question.body(server, self._model, room, with_logprobs=with_logprobs)
            response = await self._post(server, f"{server.url}/{route}", body)
            if response.status_code in MISSING_ROUTE:
                await self._find_route(server, response, by_chat=by_chat)
            elif response.status_code in WRONG_REQUEST and with_logprobs and "logprob" in response.text:
                self._tell_no_logprobs.add(server.url)
            elif response.status_code in WRONG_REQUEST:
                if count is not None or not _CONTEXT_EXCEEDED.search(response.text):
                    raise _wrong_request(server, response)
                count = await self._count(server, question)
                if count is None:
                    return _refusal(request, count)
            else:
                return self._read_completion(server, request, response, by_chat=by_chat)

    def _limit(self, server: Server) -> int:
        return min(self._max_model_len, server.context or self._max_model_len)

    def _may_overrun(self, server: Server, question: Question) -> bool:
        """Whether a server whose context is longer than ours might write beyond ours."""
        if (server.context or 0) <= self._max_model_len:
            return False
        request = question.request
        if is_conversation(request) or question.token_ids is not None:
            return True  # what a chat template adds is not known before the count; our own ids are counted at no cost
        longest = len(request.prompt.encode()) + _SPECIAL_TOKENS
        return longest + request.sampling.max_tokens > self._max_model_len

    async def _count(self, server: Server, question: Question) -> int | None:
        """Length of the prompt in tokens, if need be by vLLM's tokenizer route; None where there is none."""
        if question.token_ids is not None:
            return len(question.token_ids)
        body = {"model": self._model, **question.prompt(server)}
        response = await self._post(server, f"{server.url.removesuffix('/v1')}/tokenize", body)
        if response.status_code != HTTP_OK:
            return None
        try:
            told = orjson.loads(response.content)
            server.context = told.get("max_model_len") or server.context
            return int(told["count"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    async def _post(self, server: Server, url: str, body: dict[str, Any]) -> httpx.Response:
        """The response, when it is one that concerns this request."""
        headers = {"Content-Type": "application/json"}
        with server.lanes.lend() as client:
            response = await client.post(url, content=orjson.dumps(body), headers=headers)
        status = response.status_code
        if status == HTTP_OK or status in WRONG_REQUEST or status in MISSING_ROUTE:
            return response
        if status in REFUSED_KEY:
            raise wrong_key(server.url, response)
        reason = f"answers {status} {response.reason_phrase}"
        if status == TOO_MANY_REQUESTS:
            raise TroubleError(reason, counts=False, busy=True, pause=_retry_after(response))
        if status >= SERVER_ERROR or status in PASSING:
            reason += _what_it_says(response)
            raise TroubleError(reason, pause=_retry_after(response))
        raise _wrong_request(server, response)

    async def _find_route(self, server: Server, response: httpx.Response, *, by_chat: bool) -> None:
        """Tells a server that lacks the route from one that serves another model since it was started again."""
        try:
            wrong = await self._pool.look(server)
        except UnreachableError as error:
            raise TroubleError(str(error), counts=False, lost=True) from error
        if wrong is not None:
            raise TroubleError(wrong, counts=False, lost=True)
        if self._model in response.text:
            reason = f"answers {response.status_code}{_what_it_says(response)}"
            raise TroubleError(reason, lost=True)
        if by_chat and not server.speaks_chat:
            message = (
                f"{server.url}: has no /chat/completions, by which conversations are asked; "
                "name the served folder with --model"
            )
            raise EngineDeadError(message)
        if by_chat:
            message = f"{server.url}: has neither /completions nor /chat/completions; is it the right base URL?"
            raise EngineDeadError(message)
        if not server.speaks_chat:
            server.speaks_chat = True
            LOG.info("%s: has no completions route; prompts go as chat messages", server.url)

    def _read_completion(
        self, server: Server, request: Request, response: httpx.Response, *, by_chat: bool
    ) -> Completion:
        try:
            told = orjson.loads(response.content)
            choice = told["choices"][0]
            text = choice["message"]["content"] if by_chat else choice["text"]
            usage = told.get("usage") or {}
            details = usage.get("prompt_tokens_details") or {}
            return Completion(
                key=request.key,
                text=text or "",
                finish_reason=self._finish_reason(server, choice.get("finish_reason")),
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0),
                cached_tokens=details.get("cached_tokens"),
                confidence=_confidence(choice),
            )
        except (ValueError, TypeError, LookupError, AttributeError):
            reason = "answers what is no completion"
            raise TroubleError(reason) from None

    def _finish_reason(self, server: Server, told: Any) -> FinishReason:
        """What a server's word for the end of a completion means; one that is not known is said, once a server."""
        reason = FinishReason.told(told)
        if reason is FinishReason.ABORT and told != reason and server.url not in self._tell_odd_reasons:
            self._tell_odd_reasons.add(server.url)
            word = str(told)[:_MOST_SAID]
            LOG.warning("%s: says finish_reason %s, which is not known and taken for an abort", server.url, word)
        return reason


def _refusal(request: Request, count: int | None) -> Completion:
    return Completion(request.key, "", FinishReason.REFUSED, count or 0, 0)


def _confidence(choice: dict[str, Any]) -> float | None:
    """Mean log-probability of the drawn tokens in either route's form; None if the server tells it in neither."""
    with contextlib.suppress(TypeError, LookupError, AttributeError):
        told = choice.get("logprobs") or {}
        each = told.get("token_logprobs") or [token["logprob"] for token in told.get("content") or ()]
        drawn = [float(logprob) for logprob in each if logprob is not None]
        return sum(drawn) / len(drawn) if drawn else None
    return None


def _wrong_request(server: Server, response: httpx.Response) -> EngineDeadError:
    return EngineDeadError(
        f"{server.url}: refuses a request ({response.status_code} {response.reason_phrase})"
        f"{_what_it_says(response)}; it would refuse the others too"
    )


def _what_it_says(response: httpx.Response) -> str:
    """The message of an error, in one line: the common shapes first, else the body."""
    said: Any = response.text
    with contextlib.suppress(ValueError, AttributeError):  # no JSON object: the body is what it says
        told = orjson.loads(response.content)
        error = told.get("error", told)
        said = error.get("message") or error.get("detail") or said if isinstance(error, dict) else error
    line = " ".join(str(said).split())
    return f": {line[:_MOST_SAID]}" if line else ""


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that a server asks to be left alone; it may name a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
