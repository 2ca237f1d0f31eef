"""An engine on one or more OpenAI-compatible servers, which may come and go during a run.

A separate thread runs an event loop with one task per request in flight; completions come back through a queue. Each
request goes to the least-loaded healthy server. If that server fails, the request goes to another one, or to the same
one after a pause, until it is completed. `model_lists.py` reads which models are served, `server_pool.py` tracks the
state of the servers, and `completion_calls.py` sends the requests.
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

# Longest wait for a completion before control returns to the caller, which checks for signals.
TURN_SECONDS = 0.25
CLOSE_SECONDS = 5.0


class EndpointEngine:
    """An `Engine` on servers with the OpenAI API."""

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
        """Create the engine without sending a request; see `find_served_model`.

        Args:
            urls: base URLs, such as http://127.0.0.1:8000/v1.
            model: name under which all servers serve the model.
            settings: `in_flight` across all servers, `request_seconds` and `outage_seconds`.
            max_model_len: context length in tokens, including prompt and completion.
            api_key: key sent to all servers.
            folder: model folder, if available: its tokenizer and chat template are used for requests that the API
                cannot express.

        Raises:
            UsageError: a URL or the key is invalid.
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
        """The servers and the name of the model on them."""
        return {"engine": "endpoints", "urls": ", ".join(self.urls), "model": self.model}

    @property
    def capacity(self) -> int:
        """Maximum number of concurrent requests, across all servers."""
        return self.settings.in_flight

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        """Return immediately: requests wait for the servers."""

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Complete requests as `Engine.generate` does."""
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
        """Cancel the requests in flight and close all connections."""
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
    """The thread and event loop of one `generate` call."""

    def __init__(self, pool: ServerPool, calls: CompletionCalls) -> None:
        self._pool = pool
        self._calls = calls
        self.in_flight = 0  # requests sent and not collected yet
        self._answers: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="endpoints", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> None:
        """Start a request."""
        self.in_flight += 1
        # If the loop is closed, the queue already holds the error for the caller.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin, request)

    def collect(self, seconds: float) -> tuple[list[Completion], BaseException | None]:
        """Return finished completions, waiting up to `seconds` for the first, and the error that ended the session."""
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
        """Stop the thread and cancel the requests in flight, so that the servers stop processing them."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._pool.die, EngineDeadError("the engine was closed"))
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:  # noqa: BLE001 - passed to the waiting thread
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
