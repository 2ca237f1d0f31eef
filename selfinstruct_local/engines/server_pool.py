"""The servers of `EndpointEngine`: which one is asked next, which rest, which are gone and looked for.

Everything here runs on one event loop. A server that fails is left alone for a pause that
doubles with every further failure; one that cannot be reached, or serves another model, is asked nothing but its list
of models until that is in order again. Only an answer to a request says that a server is well: one whose generation
hangs still gives its list of models.
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
# The first requests wait that long for all servers to be looked at, so that they do not all rush to the quickest.
ROLL_CALL_SECONDS = 1.0


class RetryableError(Exception):
    """A request failed in a way that another try may mend.

    Attributes:
        counts: towards the tries of the request; a server that was not there or was busy is no fault of it.
        lost: the server may be gone.
        silent: the server took it and answered nothing in all the time it was given.
        busy: the server works, and takes no more at the moment.
        pause: seconds that it asks to be left alone.
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
    """One server and how it stands.

    Attributes:
        url: its base, without a slash at the end.
        lanes: clients to ask it with.
        load: requests it is working on for us.
        context: tokens its model reaches, as it tells; None elsewhere than vLLM and its like.
        speaks_chat: it has no completions route, so it is asked by chat messages.
        looked_at: it was asked for its models once, whatever came of it.
        gone: why it is asked nothing at the moment; None when it may be asked.
        announced: its trouble was said in the log.
        was_busy: that it asks to slow down was said in the log.
        strikes: waves of failures in a row.
        struck_at: when the last of them began.
        rests_until: when it may be asked again after a failure.
        failing_since: when it first failed after its last answer to a request; None when it is well.
        away: its list of models could not be had, or was another's, when it was last looked for.
        hangs: it took requests after such a failure, and let them run out of time.
        last_error: what it said or did last when it failed.
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
    """Servers of one model; an async context that looks after them while it is open.

    Attributes:
        dead: why all of them were given up; None while they are not.
        died: that they were.
        answered_at: when one of them last answered a request, in the loop's time.
        reader: of their answers.
    """

    def __init__(self, urls: Sequence[str], model: str, *, api_key: str | None, outage_seconds: float) -> None:
        """Makes the pool; nothing is asked before it is entered.

        Args:
            urls: base URLs, checked.
            model: the name that each must serve.
            api_key: sent as a bearer token; None sends none.
            outage_seconds: how long all of them may be gone.

        Raises:
            UsageError: the key, a proxy variable or SSL_CERT_FILE cannot be used.
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
        """Counts a request among those that are under way, for the block."""
        self._open.add(key)
        try:
            yield
        finally:
            self._open.discard(key)

    def is_at_fault(self, key: RequestKey) -> bool:
        """Whether a request that failed is to be given up, since nothing else was answered all through an outage.

        Where it is the only one under way, it may be what no server can answer, and the command would end of it
        whenever it was given. If the next one fails alone as well, the servers are at fault.
        """
        failing = [server.failing_since for server in self._servers if server.failing_since is not None]
        if not self._has_suspect() or _now() - max(failing, default=_now()) < self._outage_seconds:
            return False
        self._suspect = key
        for server in self._servers:
            server.failing_since = None  # what failed was the request
        return True

    def _has_suspect(self) -> bool:
        return len(self._open) == 1 and (self._suspect is None or self._suspect in self._open)

    async def take(self) -> Server:
        """Waits for a server that may be asked, and counts a request to the least loaded one, the earlier of equals."""
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
                # They all wait for the same moment; coming a little apart, they do not knock it over again.
                wake = soonest + _jitter() * min(0.25 * (soonest - now), FIRST_PAUSE)
            try:
                async with asyncio.timeout_at(wake):
                    await changed.wait()
            except TimeoutError:
                continue

    def answered(self, server: Server, sent_at: float) -> None:
        """Notes a good answer to a request of that time."""
        self.answered_at = _now()
        self._suspect = None
        server.failing_since = None
        server.hangs = False
        if sent_at < server.struck_at:
            return  # it was asked before the trouble began, and says nothing about how it takes new ones
        server.strikes = 0
        if server.gone is None:
            self._say_back(server)

    def struck(self, server: Server, trouble: RetryableError, sent_at: float) -> None:
        """Notes a failure of a request of that time: the server rests, and is looked after when it may be gone."""
        now = _now()
        server.last_error = str(trouble)
        server.failing_since = server.failing_since or now
        if sent_at >= server.struck_at:  # all that were under way at the first failure count as one
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
        """Gives all of them up; the first reason stands."""
        if self.dead is None:
            self.dead = error
            self.died.set()

    async def look(self, server: Server) -> str | None:
        """Asks for the models it serves: None when ours is among them, else what is wrong.

        Raises:
            UnreachableError: it gave no usable answer.
            EngineDeadError: it wants another key.
        """
        answer = await ask_for_models(server.lanes, server.url, look_seconds(self._outage_seconds))
        if answer.status in REFUSED_KEY:
            raise wrong_key(server.url, answer)
        models = self.reader.models(answer)
        if self._model not in models:
            return f"serves {listed(models)}, not {self._model}"
        # An adapter has no context of its own in vLLM's list: it is that of the model beneath.
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
                if tries:  # it was away, so what comes back is another process, which may answer
                    server.hangs = False
                    self._say_back(server)
                self._changed.set()
                self._changed = asyncio.Event()
                return
            tries += 1
            server.away = True
            server.gone = server.last_error = wrong
            server.failing_since = server.failing_since or began
            self._say_trouble(server, f"{wrong}; looking again until that is in order")
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
        return EngineDeadError(f"no server has answered for {self._outage_seconds:.0f} s: {states}")

    def _say_trouble(self, server: Server, reason: str) -> None:
        """Says that a server is in trouble, once until it is well again."""
        if not server.announced:
            server.announced = True
            LOG.warning("%s: %s", server.url, reason)

    def _say_busy(self, server: Server, reason: str) -> None:
        """Says that a server asks to slow down, once and for all: it comes and goes with every burst."""
        if not server.was_busy:
            server.was_busy = True
            LOG.warning("%s: %s; asks to slow down, and gets the pauses it asks for", server.url, reason)

    def _say_back(self, server: Server) -> None:
        if server.announced:
            server.announced = False
            LOG.info("%s: answers again", server.url)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watches.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._watches.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.die(error)


def _is_out(server: Server) -> bool:
    """Whether it answers nobody: known to be gone or to hang, or failing after a rest with nothing of ours in work."""
    if server.gone is not None:
        return server.announced
    failed_again = server.strikes > 1 or server.rests_until - _now() > LONGEST_PAUSE
    return server.hangs or (failed_again and server.load == 0)


def _pause(failures: int) -> float:
    """Seconds to wait after that many failures in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)) * (0.5 + 0.5 * _jitter())


def _jitter() -> float:
    return random.random()  # noqa: S311 - keeps retries apart, hides nothing


def _now() -> float:
    return asyncio.get_running_loop().time()
