"""Send requests to OpenAI-compatible servers until each is completed, and interpret the responses."""

import asyncio
import re
from typing import Any

import orjson

from selfinstruct_local.engines.base import Completion, FinishReason, Request
from selfinstruct_local.engines.http_clients import Answer, UnreachableError
from selfinstruct_local.engines.model_lists import LOG, REFUSED_KEY, wrong_key
from selfinstruct_local.engines.request_bodies import Question
from selfinstruct_local.engines.server_answers import HTTP_OK, OddAnswerError
from selfinstruct_local.engines.server_pool import RetryableError, Server, ServerPool
from selfinstruct_local.engines.suspects import given_up
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.templates.conversation import FolderEncoder, is_conversation

# Failed tries after which a request is abandoned, if servers complete other requests in the meantime. If no request
# completes, the servers are at fault, and the pool limits how long that may last.
MAX_TRIES = 8

WRONG_REQUEST = frozenset({400, 422})
MISSING_ROUTE = frozenset({404, 405, 501})
TOO_MANY_REQUESTS = 429
PASSING = frozenset({408, 409, 425})
SERVER_ERROR = 500

# Errors for a prompt and completion that exceed the context, of vLLM, SGLang, OpenAI, llama.cpp and TGI.
_CONTEXT_EXCEEDED = re.compile(r"context|max_model_len|max_(new_)?tokens|too long|too many tokens", re.IGNORECASE)
# Each token covers at least one byte of the text; allow for a few special tokens around it.
_SPECIAL_TOKENS = 8


class CompletionCalls:
    """Client that completes requests on the servers of a pool."""

    def __init__(
        self,
        pool: ServerPool,
        model: str,
        *,
        max_model_len: int,
        request_seconds: float,
        encoder: FolderEncoder | None = None,
    ) -> None:
        """Create the client without sending a request.

        Args:
            pool: the servers.
            model: name under which the servers serve the model.
            max_model_len: context length in tokens, including prompt and completion, even if a server's is longer.
            request_seconds: timeout of one try, in seconds.
            encoder: prompt encoder of the model folder, if the folder is available.
        """
        self._pool = pool
        self._model = model
        self._max_model_len = max_model_len
        self._request_seconds = request_seconds
        self._encoder = encoder
        self._tell_no_logprobs: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    async def complete(self, request: Request) -> Completion:
        """Return the completion of a request.

        The completion is an aborted one if the request failed too often while others completed, or through a whole
        outage as the only request.

        Raises:
            EngineDeadError: a server rejects the request or the key, and would reject all others too.
            UsageError: the request needs the model's files, and they are missing or unsuitable.
        """
        if self._encoder is None:
            question = Question.of(request, None)
        else:  # reads files and tokenizes
            question = await asyncio.to_thread(Question.of, request, self._encoder)
        with self._pool.under_way(request.key):
            return await self._ask_until_answered(request, question)

    async def _ask_until_answered(self, request: Request, question: Question) -> Completion:
        now = asyncio.get_running_loop().time
        tries, counted_at, reason = 0, now(), ""
        while tries < MAX_TRIES:
            server = await self._pool.take()
            sent_at = now()
            try:
                completion = await self._try(server, question)
            except RetryableError as trouble:
                reason = f"failed on every server, last on {server.url}: {trouble}"
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
        return given_up(request.key, reason)

    async def _try(self, server: Server, question: Question) -> Completion:
        try:
            async with asyncio.timeout(self._request_seconds):
                return await self._ask(server, question)
        except TimeoutError:
            reason = f"no response in {self._request_seconds:g} s"
            raise RetryableError(reason, lost=True, silent=True) from None
        except OddAnswerError as error:
            raise RetryableError(str(error)) from error
        except UnreachableError as error:
            raise RetryableError(str(error), counts=error.connected, lost=True) from error

    async def _ask(self, server: Server, question: Question) -> Completion:
        """Try the request on one server, with the HTTP calls needed to find the right route, length and fields."""
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
            answer = await self._post(server, f"{server.url}/{route}", body)
            if answer.status in MISSING_ROUTE:
                await self._find_route(server, answer, by_chat=by_chat)
            elif answer.status in WRONG_REQUEST and with_logprobs and "logprob" in answer.text:
                self._tell_no_logprobs.add(server.url)
            elif answer.status in WRONG_REQUEST:
                if count is not None or not _CONTEXT_EXCEEDED.search(answer.text):
                    raise self._wrong_request(server, answer)
                count = await self._count(server, question)
                if count is None:
                    return _refusal(request, count)
            else:
                return self._read_completion(server, request, answer, by_chat=by_chat)

    def _limit(self, server: Server) -> int:
        return min(self._max_model_len, server.context or self._max_model_len)

    def _may_overrun(self, server: Server, question: Question) -> bool:
        """Return whether a server with a longer context than `max_model_len` might exceed `max_model_len`."""
        if (server.context or 0) <= self._max_model_len:
            return False
        request = question.request
        if is_conversation(request) or question.token_ids is not None:
            return True  # tokens of the chat template are unknown before the count; token IDs are counted at no cost
        longest = len(request.prompt.encode()) + _SPECIAL_TOKENS
        return longest + request.sampling.max_tokens > self._max_model_len

    async def _count(self, server: Server, question: Question) -> int | None:
        """Return the length of the prompt in tokens, from vLLM's /tokenize route if needed; None if it is missing."""
        if question.token_ids is not None:
            return len(question.token_ids)
        body = {"model": self._model, **question.prompt(server)}
        answer = await self._post(server, f"{server.url.removesuffix('/v1')}/tokenize", body)
        length = self._pool.reader.prompt_length(answer)
        if length is None:
            return None
        count, context = length
        server.context = context or server.context
        return count

    async def _post(self, server: Server, url: str, body: dict[str, Any]) -> Answer:
        """Return the response if it concerns this request; raise for failures of the server or the key."""
        answer = await server.lanes.send("POST", url, orjson.dumps(body))
        status = answer.status
        if status == HTTP_OK or status in WRONG_REQUEST or status in MISSING_ROUTE:
            return answer
        if status in REFUSED_KEY:
            raise wrong_key(server.url, answer)
        reason = f"status {answer.status_line}"
        try:
            pause = self._pool.reader.pause(answer)
        except OddAnswerError as odd:
            pause = None
            reason += f"; {odd}"
        if status == TOO_MANY_REQUESTS:
            raise RetryableError(reason, counts=False, busy=True, pause=pause)
        if status >= SERVER_ERROR or status in PASSING:
            reason += self._pool.reader.error(answer)
            raise RetryableError(reason, pause=pause)
        raise self._wrong_request(server, answer)

    async def _find_route(self, server: Server, answer: Answer, *, by_chat: bool) -> None:
        """Handle a missing route: switch the server to the chat route, or raise if it now serves another model."""
        try:
            wrong = await self._pool.look(server)
        except UnreachableError as error:
            raise RetryableError(str(error), counts=False, lost=True) from error
        if wrong is not None:
            raise RetryableError(wrong, counts=False, lost=True)
        if self._model in answer.text:
            reason = f"status {answer.status_line}{self._pool.reader.error(answer)}"
            raise RetryableError(reason, lost=True)
        if by_chat and not server.speaks_chat:
            message = (
                f"{server.url}: has no /chat/completions route, which conversations need; "
                "give the served model's folder with --model"
            )
            raise EngineDeadError(message)
        if by_chat:
            message = f"{server.url}: has no /completions and no /chat/completions route; check the base URL"
            raise EngineDeadError(message)
        if not server.speaks_chat:
            server.speaks_chat = True
            LOG.info("%s: has no /completions route; prompts are sent as chat messages", server.url)

    def _read_completion(self, server: Server, request: Request, answer: Answer, *, by_chat: bool) -> Completion:
        written = self._pool.reader.completion(answer, by_chat=by_chat)
        if written.left_out:
            kinds = self._pool.reader.words(", ".join(written.left_out))
            self._say_once(server, f"ignoring parts of type {kinds} in choices[0].message.content")
        reason = FinishReason.told(written.finish_reason)
        if reason is FinishReason.ABORT and written.finish_reason != reason:
            word = self._pool.reader.words(str(written.finish_reason))
            self._say_once(server, f"unknown finish_reason {word} counts as an abort")
        return Completion(
            key=request.key,
            text=written.text,
            finish_reason=reason,
            prompt_tokens=written.prompt_tokens,
            completion_tokens=written.completion_tokens,
            cached_tokens=written.cached_tokens,
            confidence=written.confidence,
        )

    def _say_once(self, server: Server, what: str) -> None:
        if (server.url, what) not in self._said:
            self._said.add((server.url, what))
            LOG.warning("%s: %s", server.url, what)

    def _wrong_request(self, server: Server, answer: Answer) -> EngineDeadError:
        return EngineDeadError(
            f"{server.url}: rejects a request ({answer.status_line}){self._pool.reader.error(answer)}; "
            "it would reject the others too"
        )


def _refusal(request: Request, count: int | None) -> Completion:
    return Completion(request.key, "", FinishReason.REFUSED, count or 0, 0)
