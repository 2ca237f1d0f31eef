"""Run an engine in a supervised child process, so that a crash of the engine does not end the run.

The run's process holds the database and the decisions; the engine's process holds the model. They communicate over a
pipe. If the engine dies, is killed, or hangs, it is killed with all its children, restarted a bounded number of times,
and given its unfinished requests again; `suspects.py` finds requests that crash it. The parent process does not import
torch or vLLM.

The child is a fresh interpreter: modules that a notebook or script has imported do not affect vLLM, which cannot start
on a CPU if numba was imported before (vLLM 0.32 searches all loaded modules for kernels and is confused by llvmlite's
library handle).
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import NamedTuple, Self

from selfinstruct_local.engines.base import Completion, Engine, Request, RequestKey
from selfinstruct_local.engines.intake import Intake
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.suspects import PROBE, DeathRecord, Suspects
from selfinstruct_local.errors import EngineDeadError, OutOfMemoryError, UsageError, UserFacingError

LOG = logging.getLogger("selfinstruct_local.engines")

# Longest wait for a batch before control returns to the caller, which checks for signals.
TURN_SECONDS = 0.25
# Interval of heartbeats, which show that the engine still steps; enough for a watchdog of minutes.
BEAT_SECONDS = 1.0
# Loading tens of gigabytes from a slow disk and compiling for GPUs takes minutes; no model takes this long.
START_SECONDS = 1800.0
# Time for a clean shutdown, in which vLLM ends its own processes and frees shared memory.
CLOSE_SECONDS = 5.0
# Time for the engine to report why one of its own processes ended.
TELL_SECONDS = 3.0
# Requests sent beyond the engine's capacity, so that a free slot never waits for the pipe.
LOOKAHEAD = 8


class _Ready(NamedTuple):
    """The model is loaded."""


class _Beat(NamedTuple):
    """The engine stepped."""


class _Answers(NamedTuple):
    completions: list[Completion]


class _Failed(NamedTuple):
    """The engine raised an error; `for_good` if a restart would fail the same way."""

    error: UserFacingError
    for_good: bool


class _Owed:
    """The requests of one `generate` without a completion.

    Attributes:
        waiting: requests not sent to the child yet, in order.
        sent: requests sent to the child, in order.
    """

    def __init__(self) -> None:
        self.waiting: dict[RequestKey, Request] = {}
        self.sent: dict[RequestKey, Request] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.sent)

    def take_back(self) -> None:
        """Move all sent requests back to `waiting`, after the child died."""
        self.sent.pop(PROBE, None)
        self.waiting = {**self.sent, **self.waiting}
        self.sent = {}

    def without(self, given_up: list[Completion]) -> list[Completion]:
        """Remove the abandoned requests and return their completions."""
        for completion in given_up:
            del self.waiting[completion.key]
        return given_up


class EngineProcess:
    """An `Engine` that runs another engine in a child process and restarts it after crashes."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        settings: EngineSettings,
        description: dict[str, str],
        log_file: Path | None = None,
        deaths: DeathRecord | None = None,
    ) -> None:
        """Start the process; `wait_until_ready` blocks until the model is loaded.

        Args:
            make_engine: creates the engine in the child, and again after each restart; must be picklable.
            settings: `in_flight` is the capacity; `hang_seconds` and `restarts` limit hangs and restarts.
            description: description of the created engine.
            log_file: file for all output of the child; None sends it to this process's stderr.
            deaths: engine deaths of earlier starts, extended by those of this one; None keeps no record.
        """
        self.description = description
        self.capacity = settings.in_flight
        self._make_engine = make_engine
        self._settings = settings
        self._log_file = log_file
        self._suspects = Suspects(deaths)
        self._restarts = 0
        self._ready = False
        self._ended = False
        self._heard = 0.0  # time of the child's last message
        self._spawn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """PID of the current child, which is also the ID of its process group."""
        return self._process.pid

    def wait_until_ready(self, keep_waiting: Callable[[], bool] = lambda: True) -> None:
        """Block until the model is loaded, or until `keep_waiting` returns False.

        Raises:
            UsageError: the engine refuses to start; the message says what to change.
            RunError: the engine failed to start.
        """
        while not self._ready and keep_waiting():
            self._listen(_Owed())

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Complete requests as `Engine.generate` does; closing with requests in flight shuts down the child."""
        intake = Intake(requests)
        owed = _Owed()
        try:
            while True:
                self._hand_over(intake, owed)
                if intake.ended and not owed:
                    return
                yield self._listen(owed) if owed else []
        finally:
            if owed:
                self.close()

    def close(self) -> None:
        """End the child and all its children, after a clean shutdown if possible."""
        if self._ready and not self._ended:
            with contextlib.suppress(OSError):  # it just died
                self._pipe.send(None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        self._end()

    def _hand_over(self, intake: Intake, owed: _Owed) -> None:
        """Pull requests while there is room, and send those that may be in flight now."""

        def has_room() -> bool:
            waiting = sum(key not in self._suspects for key in owed.waiting)
            return len(owed.sent) + waiting < self.capacity + LOOKAHEAD

        for request in intake.take(has_room):
            owed.waiting[request.key] = request
        if self._ready and owed.waiting:
            chosen = self._suspects.select(list(owed.waiting.values()), owed.sent)
            for request in chosen:
                owed.waiting.pop(request.key, None)
                owed.sent[request.key] = request
            if chosen:
                self._send(chosen)

    def _send(self, requests: list[Request]) -> None:
        # If the child just died, the pipe reports it on the next read, and the requests go to the restarted child.
        with contextlib.suppress(OSError):
            self._pipe.send(requests)

    def _listen(self, owed: _Owed) -> list[Completion]:
        """Return the completions that arrive within one turn; restart the child if it hangs or dies."""
        if not self._pipe.poll(TURN_SECONDS):
            allowed = self._settings.hang_seconds if self._ready else START_SECONDS
            if time.monotonic() - self._heard > allowed:
                return self._replace(f"sent no message for {allowed:.0f} s", owed)
            return []
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
            return self._replace(_how_it_ended(self._process.poll()), owed)
        self._heard = time.monotonic()
        if isinstance(message, _Answers):
            self._restarts = 0
            for completion in message.completions:
                self._suspects.answered(owed.sent.pop(completion.key))
            answers = [completion for completion in message.completions if completion.key != PROBE]
            return answers + owed.without(self._suspects.give_up(owed.waiting))
        if isinstance(message, _Ready):
            self._ready = True
        elif isinstance(message, _Failed):
            if message.for_good:
                self._end()
                raise message.error
            return self._replace(str(message.error), owed)
        return []

    def _spawn(self) -> None:
        self._pipe, theirs = Pipe()
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        with theirs, Path(self._log_file or os.devnull).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=log if self._log_file else sys.stderr,
                stderr=log if self._log_file else None,
                pass_fds=[theirs.fileno()],
                # Terminal signals reach only the parent, and the child can be killed together with its children.
                start_new_session=True,
            )
        self._pipe.send(self._make_engine)
        self._ready = False
        self._ended = False
        self._heard = time.monotonic()

    def _replace(self, why: str, owed: _Owed) -> list[Completion]:
        """Restart the child; return the completions of abandoned requests.

        Raises:
            EngineDeadError: the child did not start, or the allowed restarts are used up.
        """
        was_ready = self._ready
        self._end()
        log = f"; see its log: {self._log_file}" if self._log_file else ""
        if not was_ready and self._restarts == 0:
            message = f"the engine did not start: it {why}{log}"
            raise EngineDeadError(message)
        # The child takes requests in order, so it is processing the first ones up to its capacity.
        in_flight = list(owed.sent)[: self.capacity] if was_ready else []
        owed.take_back()
        given_up = owed.without(self._suspects.blame(in_flight, why))
        if given_up:
            self._restarts = 0
            self._spawn()
            return given_up
        if self._restarts >= self._settings.restarts:
            message = f"the engine {why}; it was restarted {self._restarts} time(s) without a completion{log}"
            raise EngineDeadError(message)
        self._restarts += 1
        LOG.warning("the engine %s; restarting it (%d of %d)", why, self._restarts, self._settings.restarts)
        self._spawn()
        return []

    def _end(self) -> None:
        """Kill the child's process group, only once, because the system may reuse its ID."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " (out of memory? lower --memory-gb or --in-flight)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"exited with code {exit_code}"


class _Inbox:
    """The parent's requests as a source for `Engine.generate`, in the child."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.outstanding = 0
        self.closed = False
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def _receive(self) -> None:
        while True:
            try:
                requests = self._pipe.recv()
            except (EOFError, OSError):
                # The parent is gone: end the whole process group, which frees the model's memory.
                os.killpg(0, signal.SIGKILL)
            # Set at once, because a full engine pulls no requests.
            self.closed = requests is None
            for request in [None] if requests is None else requests:
                self._queue.put(request)

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        try:
            # Block only if no request is outstanding, so that the engine keeps stepping.
            request = self._queue.get(block=self.outstanding == 0)
        except queue.Empty:
            return None
        if request is None:
            raise StopIteration
        self.outstanding += 1
        return request


def serve(descriptor: int) -> None:
    """Run the child: create the engine that the parent sends, and complete the requests that follow."""
    pipe = Connection(descriptor)
    make_engine = pipe.recv()
    # transformers looks for a package named "kernels" and would take a folder of that name in the working directory.
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != Path.cwd()]
    inbox = _Inbox(pipe)
    try:
        engine = make_engine()
    except UserFacingError as error:
        pipe.send(_Failed(error, for_good=True))
        return
    _end_with_children()
    pipe.send(_Ready())
    try:
        _answer(engine, inbox, pipe)
    except (OutOfMemoryError, UsageError) as error:
        pipe.send(_Failed(error, for_good=True))
    except EngineDeadError as error:
        pipe.send(_Failed(error, for_good=False))
    else:
        engine.close()


def _end_with_children() -> None:
    """End this process when a process that the engine started ends.

    On GPUs vLLM's core runs in a separate process, and vLLM waits for it forever after it is killed (vLLM 0.32).
    """
    started = [child.sentinel for child in multiprocessing.active_children()]

    def watch() -> None:
        wait(started)
        time.sleep(TELL_SECONDS)
        os.killpg(0, signal.SIGKILL)

    if started:
        threading.Thread(target=watch, name="children", daemon=True).start()


def _answer(engine: Engine, inbox: _Inbox, pipe: Connection) -> None:
    batches = engine.generate(inbox)
    beat = 0.0
    for completions in batches:
        inbox.outstanding -= len(completions)
        if completions:
            pipe.send(_Answers(completions))
        elif time.monotonic() - beat > BEAT_SECONDS:
            beat = time.monotonic()
            pipe.send(_Beat())
        if inbox.closed:
            break
    batches.close()
