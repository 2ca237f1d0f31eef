"""The servers of `EndpointEngine`: load balancing, backoff after failures, and health checks.

Everything here runs on one event loop. A server that fails gets no requests for a pause, which doubles with every
further failure. A server that is unreachable or serves another model is only asked for its list of models until that
list is correct again. Only a completion shows that a server is healthy: a server whose generation hangs still returns
its list of models.
"""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from selfinstruct_local.engines.base import RequestKey
from selfinstruct_local.engines.http_clients import HttpClients, UnreachableError
from selfinstruct_local.engines.model_lists import LOG, REFUSED_KEY, ask_for_models, listed, look_seconds, wrong_key
from selfinstruct_local.engines.server_answers import AnswerReader
from selfinstruct_local.errors import EngineDeadError

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
WATCH_SECONDS = 0.1
# The first requests wait this long for checks of all servers, so that they do not all go to the fastest one.
ROLL_CALL_SECONDS = 1.0


class RetryableError(Exception):
    """A request failed, and another try may succeed.

    Attributes:
        counts: whether the failure counts towards the request's tries; an unreachable or busy server does not count.
        lost: whether the server may be gone.
        silent: whether the server accepted the request and did not respond before the timeout.
        busy: whether the server works but accepts no more requests at the moment.
        pause: seconds without requests that the server asks for.
    """

    def __init__(
        self,
        reason: str,
        *,
        counts: bool = True,
        lost: bool = False,
        silent: bool = False,
        busy: bool = False,
        pause: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.counts = counts
        self.lost = lost
        self.silent = silent
        self.busy = busy
        self.pause = pause


@dataclass(eq=False)
class Server:
    """A server and its state.

    Attributes:
        url: base URL, without a trailing slash.
        lanes: HTTP clients for the server.
        load: number of this engine's requests in flight on the server.
        context: context length in tokens, if the server reports it as vLLM does; None otherwise.
        speaks_chat: whether the server has no completions route and gets chat messages.
        looked_at: set after the first request for its list of models, successful or not.
        gone: why the server gets no requests at the moment; None if it gets requests.
        announced: whether its failure was logged.
        was_busy: whether its request to slow down was logged.
        strikes: consecutive waves of failures.
        struck_at: time at which the last wave began.
        rests_until: time from which it gets requests again after a failure.
        failing_since: time of the first failure after its last completion; None if it is healthy.
        away: whether its last list of models was missing or lacked the model.
        hangs: whether requests sent to it after such a failure timed out.
        last_error: message of its last failure.
    """

    url: str
    lanes: HttpClients
    load: int = 0
    context: int | None = None
    speaks_chat: bool = False
    looked_at: asyncio.Event = field(default_factory=asyncio.Event)
    gone: str | None = "not asked yet"
    announced: bool = False
    was_busy: bool = False
    strikes: int = 0
    struck_at: float = float("-inf")
    rests_until: float = float("-inf")
    failing_since: float | None = None
    away: bool = False
    hangs: bool = False
    last_error: str = "not asked yet"


class ServerPool:
    """Servers of one model; an async context manager that monitors them.

    Attributes:
        dead: error with which the pool failed; None while it works.
        died: set when the pool has failed.
        answered_at: time of the last completion of any server, on the loop's clock.
        reader: parser for their responses.
    """

    def __init__(self, urls: Sequence[str], model: str, *, api_key: str | None, outage_seconds: float) -> None:
        """Create the pool; no request is sent before the context is entered.

        Args:
            urls: base URLs, checked.
            model: name of the model that each server must serve.
            api_key: key sent as a bearer token; None sends none.
            outage_seconds: seconds that all servers may be unavailable.

        Raises:
            UsageError: the key, a proxy variable or SSL_CERT_FILE is invalid.
        """
        self.dead: BaseException | None = None
        self.died = asyncio.Event()
        self.answered_at = float("-inf")
        self._open: set[RequestKey] = set()
        self._suspect: RequestKey | None = None
        self._model = model
        self._outage_seconds = outage_seconds
        self._called = asyncio.Event()
        self._changed = asyncio.Event()
        self._watches: set[asyncio.Task[None]] = set()
        self.reader = AnswerReader(api_key)
        self._servers = [Server(url, HttpClients(url, api_key)) for url in urls]

    async def __aenter__(self) -> Self:
        for server in self._servers:
            self._start(self._look_after(server))
        self._start(self._watch_for_outage())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROLL_CALL_SECONDS):
                for server in self._servers:
                    await server.looked_at.wait()
        self._called.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for server in self._servers:
            await server.lanes.aclose()

    @contextlib.contextmanager
    def under_way(self, key: RequestKey) -> Iterator[None]:
        """Count a request as in progress during the `with` block."""
        self._open.add(key)
        try:
            yield
        finally:
            self._open.discard(key)

    def is_at_fault(self, key: RequestKey) -> bool:
        """Return whether a failed request should be abandoned, because no request completed during a whole outage.

        If it is the only request in progress, it may be one that no server can complete, and it would fail the command
        on every start. If the next request also fails alone, the servers are at fault.
        """
        failing = [server.failing_since for server in self._servers if server.failing_since is not None]
        if not self._has_suspect() or _now() - max(failing, default=_now()) < self._outage_seconds:
            return False
        self._suspect = key
        for server in self._servers:
            server.failing_since = None  # the failures were the request's
        return True

    def _has_suspect(self) -> bool:
        return len(self._open) == 1 and (self._suspect is None or self._suspect in self._open)

    async def take(self) -> Server:
        """Wait for a server that may get requests; return the least-loaded (first of equals) and add to its load."""
        await self._called.wait()
        while True:
            now = _now()
            up = [server for server in self._servers if server.gone is None]
            rested = [server for server in up if server.rests_until <= now]
            if rested:
                chosen = min(rested, key=lambda server: server.load)
                chosen.load += 1
                return chosen
            changed = self._changed
            wake = None
            if up:
                soonest = min(server.rests_until for server in up)
                # All waiting requests wake at this time; jitter spreads them to avoid another overload.
                wake = soonest + _jitter() * min(0.25 * (soonest - now), FIRST_PAUSE)
            try:
                async with asyncio.timeout_at(wake):
                    await changed.wait()
            except TimeoutError:
                continue

    def answered(self, server: Server, sent_at: float) -> None:
        """Record a completion of a request that was sent at `sent_at`."""
        self.answered_at = _now()
        self._suspect = None
        server.failing_since = None
        server.hangs = False
        if sent_at < server.struck_at:
            return  # sent before the failures began, so it does not show that the server accepts new requests
        server.strikes = 0
        if server.gone is None:
            self._say_back(server)

    def struck(self, server: Server, trouble: RetryableError, sent_at: float) -> None:
        """Record a failure of a request sent at `sent_at`: pause the server, and monitor it if it may be gone."""
        now = _now()
        server.last_error = str(trouble)
        server.failing_since = server.failing_since or now
        if sent_at >= server.struck_at:  # failures of requests in flight at the first failure count as one
            server.strikes += 1
            server.struck_at = now
            server.rests_until = now + _pause(server.strikes)
            server.hangs = trouble.silent and sent_at >= server.failing_since
        if trouble.pause is not None:
            server.rests_until = max(server.rests_until, now + trouble.pause)
        if trouble.lost and server.gone is None:
            server.gone = str(trouble)
            self._start(self._look_after(server))
        if trouble.busy:
            self._say_busy(server, str(trouble))
        elif not trouble.lost or server.strikes > 1:
            self._say_trouble(server, str(trouble))

    def die(self, error: BaseException) -> None:
        """Fail the pool; only the first error is kept."""
        if self.dead is None:
            self.dead = error
            self.died.set()

    async def look(self, server: Server) -> str | None:
        """Ask a server for its list of models; return None if it has the pool's model, or else the problem.

        Raises:
            UnreachableError: there is no valid response.
            EngineDeadError: the server rejects the key.
        """
        answer = await ask_for_models(server.lanes, server.url, look_seconds(self._outage_seconds))
        if answer.status in REFUSED_KEY:
            raise wrong_key(server.url, answer)
        models = self.reader.models(answer)
        if self._model not in models:
            return f"serves {listed(models)}, not {self._model}"
        # vLLM lists no context length for an adapter: use that of its base model.
        server.context = models[self._model] or next(filter(None, models.values()), None)
        return None

    async def _look_after(self, server: Server) -> None:
        tries = 0
        while server.gone is not None:
            began = _now()
            try:
                wrong = await self.look(server)
            except UnreachableError as error:
                wrong = str(error)
            server.looked_at.set()
            if wrong is None:
                server.gone = None
                server.away = False
                if tries:  # it was away, so this may be a new process, which does not hang
                    server.hangs = False
                    self._say_back(server)
                self._changed.set()
                self._changed = asyncio.Event()
                return
            tries += 1
            server.away = True
            server.gone = server.last_error = wrong
            server.failing_since = server.failing_since or began
            self._say_trouble(server, f"{wrong}; checking again until this is fixed")
            await asyncio.sleep(_pause(tries))

    async def _watch_for_outage(self) -> None:
        while True:
            suspected = self._has_suspect()
            out = (server for server in self._servers if (server.away if suspected else _is_out(server)))
            failing = [server.failing_since for server in out]
            if len(failing) == len(self._servers):
                since = max(filter(None, failing), default=_now())
                if _now() - since >= self._outage_seconds:
                    self.die(self._outage())
                    return
            await asyncio.sleep(WATCH_SECONDS)

    def _outage(self) -> EngineDeadError:
        states = ", ".join(f"{server.url} ({server.last_error})" for server in self._servers)
        return EngineDeadError(f"no server has responded for {self._outage_seconds:.0f} s: {states}")

    def _say_trouble(self, server: Server, reason: str) -> None:
        """Log that a server fails, once until it is healthy again."""
        if not server.announced:
            server.announced = True
            LOG.warning("%s: %s", server.url, reason)

    def _say_busy(self, server: Server, reason: str) -> None:
        """Log that a server asks to slow down, only once, because it recurs with every burst."""
        if not server.was_busy:
            server.was_busy = True
            LOG.warning("%s: %s; the server asks to slow down, and requests pause accordingly", server.url, reason)

    def _say_back(self, server: Server) -> None:
        if server.announced:
            server.announced = False
            LOG.info("%s: responds again", server.url)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watches.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._watches.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.die(error)


def _is_out(server: Server) -> bool:
    """Return whether a server is down: gone, hanging, or failing again after a pause with no request in flight."""
    if server.gone is not None:
        return server.announced
    failed_again = server.strikes > 1 or server.rests_until - _now() > LONGEST_PAUSE
    return server.hangs or (failed_again and server.load == 0)


def _pause(failures: int) -> float:
    """Return the seconds to wait after this many consecutive failures."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * _jitter())


def _jitter() -> float:
    return random.random()  # noqa: S311 - jitter of retries, not cryptography


def _now() -> float:
    return asyncio.get_running_loop().time()
