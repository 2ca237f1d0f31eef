"""One request to OpenAI-compatible servers, until it has its completion: what is sent, and what the answers mean."""

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

# A request that brings down or confuses every server that takes it, while others are answered, is given up after that
# many. Where nothing is answered it is the servers that fail, and the pool says for how long that may go on.
MAX_TRIES = 8

WRONG_REQUEST = frozenset({400, 422})
MISSING_ROUTE = frozenset({404, 405, 501})
TOO_MANY_REQUESTS = 429
PASSING = frozenset({408, 409, 425})
SERVER_ERROR = 500

# How servers say that prompt and answer do not fit: vLLM and SGLang, OpenAI, llama.cpp, TGI.
_CONTEXT_EXCEEDED = re.compile(r"context|max_model_len|max_(new_)?tokens|too long|too many tokens", re.IGNORECASE)
# A token is at least one byte of the text; a few special ones may stand around it.
_SPECIAL_TOKENS = 8


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
        self._said: set[tuple[str, str]] = set()

    async def complete(self, request: Request) -> Completion:
        """The completion of a request; an aborted one when it failed too often while others were answered, or alone.

        Raises:
            EngineDeadError: a server refuses the request or the key, and would refuse all others.
            UsageError: the request needs the model's files, and they are not known here or do not serve.
        """
        if self._encoder is None:
            question = Question.of(request, None)
        else:  # reads files, and encodes
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
                reason = f"no server can answer it, the last one, {server.url}: {trouble}"
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
            reason = f"no answer in {self._request_seconds:g} s"
            raise RetryableError(reason, lost=True, silent=True) from None
        except OddAnswerError as error:
            raise RetryableError(str(error)) from error
        except UnreachableError as error:
            raise RetryableError(str(error), counts=error.connected, lost=True) from error

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
        answer = await self._post(server, f"{server.url.removesuffix('/v1')}/tokenize", body)
        length = self._pool.reader.prompt_length(answer)
        if length is None:
            return None
        count, context = length
        server.context = context or server.context
        return count

    async def _post(self, server: Server, url: str, body: dict[str, Any]) -> Answer:
        """The answer, when it is one that concerns this request."""
        answer = await server.lanes.send("POST", url, orjson.dumps(body))
        status = answer.status
        if status == HTTP_OK or status in WRONG_REQUEST or status in MISSING_ROUTE:
            return answer
        if status in REFUSED_KEY:
            raise wrong_key(server.url, answer)
        reason = f"answers {answer.status_line}"
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
        """Tells a server that lacks the route from one that serves another model since it was started again."""
        try:
            wrong = await self._pool.look(server)
        except UnreachableError as error:
            raise RetryableError(str(error), counts=False, lost=True) from error
        if wrong is not None:
            raise RetryableError(wrong, counts=False, lost=True)
        if self._model in answer.text:
            reason = f"answers {answer.status_line}{self._pool.reader.error(answer)}"
            raise RetryableError(reason, lost=True)
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

    def _read_completion(self, server: Server, request: Request, answer: Answer, *, by_chat: bool) -> Completion:
        written = self._pool.reader.completion(answer, by_chat=by_chat)
        if written.left_out:
            kinds = self._pool.reader.words(", ".join(written.left_out))
            self._say_once(server, f"parts of kind {kinds} in choices[0].message.content are left out")
        reason = FinishReason.told(written.finish_reason)
        if reason is FinishReason.ABORT and written.finish_reason != reason:
            word = self._pool.reader.words(str(written.finish_reason))
            self._say_once(server, f"says finish_reason {word}, which is not known and taken for an abort")
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
            f"{server.url}: refuses a request ({answer.status_line}){self._pool.reader.error(answer)}; "
            "it would refuse the others too"
        )


def _refusal(request: Request, count: int | None) -> Completion:
    return Completion(request.key, "", FinishReason.REFUSED, count or 0, 0)
