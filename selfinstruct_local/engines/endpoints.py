"""OpenAI-compatible servers as an engine: one or many, started here or by others, coming and going.

A thread of its own runs an event loop with a task for every request in flight; completions come back through a queue.
A request goes to the least loaded server that is well, and on to another (or the same, after a pause) when that one
fails, until it has its completion. `model_lists.py` finds out what they serve, `server_pool.py` knows how they stand,
`completion_calls.py` what is said.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from selfinstruct_local.engines.base import Completion, Request
from selfinstruct_local.engines.completion_calls import CompletionCalls
from selfinstruct_local.engines.http_clients import allow_connections
from selfinstruct_local.engines.intake import Intake
from selfinstruct_local.engines.keys import authorization
from selfinstruct_local.engines.model_lists import check_urls, find_served_model, served_models
from selfinstruct_local.engines.server_pool import ServerPool
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.templates.conversation import FolderEncoder

__all__ = ["EndpointEngine", "find_served_model", "served_models"]

# How long a completion is waited for before the caller gets its turn, to look at signals.
TURN_SECONDS = 0.25
CLOSE_SECONDS = 5.0


class EndpointEngine:
    """An `Engine` over servers that speak the OpenAI API."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str,
        settings: EngineSettings,
        max_model_len: int,
        api_key: str | None = None,
        folder: Path | None = None,
    ) -> None:
        """Asks nothing yet; see `find_served_model`.

        Args:
            urls: base URLs, such as http://127.0.0.1:8000/v1.
            model: the name under which all of them serve the model.
            settings: `in_flight` over all servers together, `request_seconds` and `outage_seconds`.
            max_model_len: context in tokens, prompt and answer together.
            api_key: sent to all of them.
            folder: of the model, when it is known here: its tokenizer and chat template serve requests that the API
                has no words for.

        Raises:
            UsageError: a URL or the key will not do.
        """
        authorization(api_key)
        self.urls = check_urls(urls)
        self.model = model
        self.settings = settings
        self.max_model_len = max_model_len
        self._api_key = api_key
        self._encoder = FolderEncoder(folder) if folder else None
        self._session: _Session | None = None

    @property
    def description(self) -> dict[str, str]:
        """What answers: the servers and the name of the model there."""
        return {"engine": "endpoints", "urls": ", ".join(self.urls), "model": self.model}

    @property
    def capacity(self) -> int:
        """See `Engine.capacity`: over all servers together."""
        return self.settings.in_flight

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        """Returns at once: servers are waited for while their requests are."""

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """See `Engine.generate`."""
        intake = Intake(requests)
        session = self._session = self._open()
        try:
            while True:
                for request in intake.take(lambda: session.in_flight < self.capacity):
                    session.ask(request)
                if session.in_flight == 0 and intake.ended:
                    return
                batch, error = session.collect(TURN_SECONDS) if session.in_flight else ([], None)
                if batch or error is None:
                    yield batch
                if error is not None:
                    raise error
        finally:
            session.close()

    def close(self) -> None:
        """Takes back what is in flight and closes all connections."""
        if self._session is not None:
            self._session.close()

    def _open(self) -> "_Session":
        pool = ServerPool(
            self.urls,
            self.model,
            api_key=self._api_key,
            outage_seconds=self.settings.outage_seconds,
        )
        allow_connections(self.capacity)
        calls = CompletionCalls(
            pool,
            self.model,
            max_model_len=self.max_model_len,
            request_seconds=self.settings.request_seconds,
            encoder=self._encoder,
        )
        return _Session(pool, calls)


class _Session:
    """The thread with the event loop behind one `generate`."""

    def __init__(self, pool: ServerPool, calls: CompletionCalls) -> None:
        self._pool = pool
        self._calls = calls
        self.in_flight = 0  # asked and not collected
        self._answers: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="endpoints", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> None:
        """Puts a request in flight."""
        self.in_flight += 1
        # On a closed loop there is an error in the queue that the caller is about to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin, request)

    def collect(self, seconds: float) -> tuple[list[Completion], BaseException | None]:
        """What finished, waiting for the first that long; and what ended it all, if something did."""
        batch: list[Completion] = []
        error: BaseException | None = None
        with contextlib.suppress(queue.Empty):
            answer = self._answers.get(timeout=seconds)
            while isinstance(answer, Completion):
                batch.append(answer)
                answer = self._answers.get_nowait()
            error = answer
        self.in_flight -= len(batch)
        return batch, error

    def close(self) -> None:
        """Ends the thread; what is in flight is taken back, so that servers stop working on it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._pool.die, EngineDeadError("the engine was closed"))
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._pool.dead = self._pool.dead or error
        finally:
            self._loop.close()
            self._answers.put(self._pool.dead or EngineDeadError("the engine ended"))

    async def _main(self) -> None:
        async with self._pool:
            await self._pool.died.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, request: Request) -> None:
        if self._pool.dead is not None:
            return
        task = self._loop.create_task(self._calls.complete(request))
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Completion]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._answers.put(task.result())
        else:
            self._pool.die(error)
