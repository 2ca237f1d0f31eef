"""An engine in a process of its own, watched: what it dies of, it dies of alone.

The run's process keeps the database and the decisions; the engine's process keeps the model. They talk over a pipe.
An engine that dies, is killed, or falls silent while it has work is ended with all its children, started again a
bounded number of times, and asked again for what it still owed; `suspects.py` finds the request that it dies of.
Nothing of torch or vLLM is imported on this side.

The child is a fresh interpreter that knows nothing of the program that started it: what a notebook or a script has
imported does not reach vLLM, which cannot start on a CPU where numba was imported before (vLLM 0.32 looks through all
loaded modules for kernels, and llvmlite's library handle answers in its own way).
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

# How long a batch is waited for before the caller gets its turn, to look at signals.
TURN_SECONDS = 0.25
# A beat says that the engine still steps; one a second is enough for a watchdog of minutes.
BEAT_SECONDS = 1.0
# Loading tens of gigabytes from a slow disk and compiling for a GPU takes minutes; no model takes this long.
START_SECONDS = 1800.0
# Time to take leave in: vLLM ends its own processes and gives back shared memory.
CLOSE_SECONDS = 5.0
# Where a process of the engine's own ended, time for the engine to tell of what.
TELL_SECONDS = 3.0
# Requests handed over beyond what the engine works on, so that a free slot never waits for the pipe.
LOOKAHEAD = 8


class _Ready(NamedTuple):
    """The model is loaded."""


class _Beat(NamedTuple):
    """The engine stepped."""


class _Answers(NamedTuple):
    completions: list[Completion]


class _Failed(NamedTuple):
    """The engine raised; `for_good` when starting it again would end the same way."""

    error: UserFacingError
    for_good: bool


class _Owed:
    """The requests of one `generate` without a completion.

    Attributes:
        waiting: not sent to the child, in order.
        sent: sent to it, in order.
    """

    def __init__(self) -> None:
        self.waiting: dict[RequestKey, Request] = {}
        self.sent: dict[RequestKey, Request] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.sent)

    def take_back(self) -> None:
        """The child died: nothing is sent any more."""
        self.sent.pop(PROBE, None)
        self.waiting = {**self.sent, **self.waiting}
        self.sent = {}

    def without(self, given_up: list[Completion]) -> list[Completion]:
        """Takes out the requests that are given up; returns their completions."""
        for completion in given_up:
            del self.waiting[completion.key]
        return given_up


class EngineProcess:
    """An `Engine` that runs another one in a child process and outlives it."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        settings: EngineSettings,
        description: dict[str, str],
        log_file: Path | None = None,
        deaths: DeathRecord | None = None,
    ) -> None:
        """Starts the process; `wait_until_ready` tells when the model is loaded.

        Args:
            make_engine: called in the child, and again in each that takes its place; must be picklable.
            settings: `in_flight` is its capacity; `hang_seconds` and `restarts` bound what is put up with.
            description: of the engine that it makes.
            log_file: takes all that the child prints; its stderr is ours when None.
            deaths: of earlier starts, and where those of this one are noted; None forgets them.
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
        self._heard = 0.0  # when the child last said something
        self._spawn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the child as it is now, which leads a process group of that number."""
        return self._process.pid

    def wait_until_ready(self, keep_waiting: Callable[[], bool] = lambda: True) -> None:
        """Returns when the model is loaded, or as soon as `keep_waiting` says no.

        Raises:
            UsageError: the engine refuses to start, and says what to change.
            RunError: it failed to start.
        """
        while not self._ready and keep_waiting():
            self._listen(_Owed())

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """See `Engine.generate`. When closed with requests in flight, the child takes its leave."""
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
        """Ends the child and all its children; it may take leave first."""
        if self._ready and not self._ended:
            with contextlib.suppress(OSError):  # it just died
                self._pipe.send(None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        self._end()

    def _hand_over(self, intake: Intake, owed: _Owed) -> None:
        """Takes requests while there is room, and sends what may be in flight now."""

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
        # If it just died, the end of the pipe is read next, and all that is owed goes to its successor.
        with contextlib.suppress(OSError):
            self._pipe.send(requests)

    def _listen(self, owed: _Owed) -> list[Completion]:
        """What the child says within a turn; deals with its silence and its death."""
        if not self._pipe.poll(TURN_SECONDS):
            allowed = self._settings.hang_seconds if self._ready else START_SECONDS
            if time.monotonic() - self._heard > allowed:
                return self._replace(f"said nothing for {allowed:.0f} s", owed)
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
                # Signals of the terminal go to the parent alone, and the child and its children can be ended as one.
                start_new_session=True,
            )
        self._pipe.send(self._make_engine)
        self._ready = False
        self._ended = False
        self._heard = time.monotonic()

    def _replace(self, why: str, owed: _Owed) -> list[Completion]:
        """Ends the child and starts another, unless that was tried too often; gives up the request it dies of."""
        was_ready = self._ready
        self._end()
        log = f"; its log: {self._log_file}" if self._log_file else ""
        if not was_ready and self._restarts == 0:
            message = f"the engine did not start: it {why}{log}"
            raise EngineDeadError(message)
        # It takes them in order, so what it works on are the first that it can hold.
        in_flight = list(owed.sent)[: self.capacity] if was_ready else []
        owed.take_back()
        given_up = owed.without(self._suspects.blame(in_flight, why))
        if given_up:
            self._restarts = 0
            self._spawn()
            return given_up
        if self._restarts >= self._settings.restarts:
            message = f"the engine {why}, and was started {self._restarts} time(s) again without a completion{log}"
            raise EngineDeadError(message)
        self._restarts += 1
        LOG.warning("the engine %s; starting it again (%d of %d)", why, self._restarts, self._settings.restarts)
        self._spawn()
        return []

    def _end(self) -> None:
        """Kills the child's whole process group, once: its number may be another's later."""
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
        return f"was ended by {name}{hint}"
    return f"exited with code {exit_code}"


class _Inbox:
    """The requests of the parent as a source for `Engine.generate`, in the child."""

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
                # The parent is gone, and nobody is left to answer to: the whole group ends, the model's memory with it.
                os.killpg(0, signal.SIGKILL)
            # Said at once, since an engine that is full pulls nothing.
            self.closed = requests is None
            for request in [None] if requests is None else requests:
                self._queue.put(request)

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        try:
            # With nothing to do it waits here; else it must not keep the engine from stepping.
            request = self._queue.get(block=self.outstanding == 0)
        except queue.Empty:
            return None
        if request is None:
            raise StopIteration
        self.outstanding += 1
        return request


def serve(descriptor: int) -> None:
    """What the child does: makes the engine that the parent sends, and answers the requests that follow."""
    pipe = Connection(descriptor)
    make_engine = pipe.recv()
    # transformers looks for a package named "kernels", which a folder of that name where the user stands is not.
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
    """Ends this process when one that the engine has started ends.

    On a GPU vLLM's core works in a process of its own, and is waited for without end when it is killed (vLLM 0.32).
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
