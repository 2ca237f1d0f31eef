"""A run with the scripted engine, in a process that dies where it is told to. `test_kills.py` starts it.

The points are places in the life of the files, named by what is about to happen: a statement of SQLite (its trace
callback tells before each), and the steps of an export.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, Request
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.run import run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io import files
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from tests.scripted_engine import ScriptedEngine

MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}
ASKED = "asked.log"

# What is about to run when the process dies. "later" is the statement after a commit: the commit has been made.
STATEMENT_POINTS = (
    "INSERT INTO facts",
    "INSERT INTO seeds",
    "INSERT INTO sessions",
    "BEGIN",
    "INSERT INTO completions",
    "INSERT INTO jobs",
    "INSERT INTO candidates",
    "COMMIT",
    "later",
    "UPDATE candidates",
    "UPDATE sessions",
)
REPEATED_POINTS = ("BEGIN", "INSERT INTO completions", "INSERT INTO jobs", "INSERT INTO candidates", "COMMIT", "later")
EXPORT_POINTS = ("export begins", "export synced", "export renamed", "export done")
POINTS = (*STATEMENT_POINTS, *EXPORT_POINTS)


class LoggingEngine(ScriptedEngine):
    """Notes what it is asked in a file that outlives the process."""

    def __init__(self, log: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _answer(self, request: Request) -> Completion:
        job, stage, branch = request.key
        os.write(self._log, f"{job} {stage} {branch}\n".encode())
        return super()._answer(request)


def die() -> None:
    """As a power cut would have it: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def settings(profile: str) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"num": 30, "window": 8, "patience": 50, "profile": profile})


def generate(
    folder: Path, profile: str, order: int, latency: float = 0.0, point: str = "", occurrence: int = 1
) -> None:
    """One session of the run in `folder`; dies at the n-th time that `point` is reached, if one is named."""
    reached = _Countdown(occurrence)
    if point in EXPORT_POINTS:
        _die_in_export(point, reached)
    with RunStore(folder) as store:
        if point in STATEMENT_POINTS:
            store._db.set_trace_callback(_die_at_statement(point, reached))
        chosen = settings(profile)
        seeds = open_run(store, chosen, MODEL, [seed_file()])
        engine = LoggingEngine(folder / ASKED, in_flight=1 + order % 5, order=order, latency=latency)
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        run(store, chosen, seeds, lambda: engine, display, Interrupt())


class _Countdown:
    def __init__(self, occurrence: int) -> None:
        self._left = occurrence

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            die()


def _die_at_statement(point: str, reached: Callable[[], None]) -> Callable[[str], None]:
    committed = False

    def trace(statement: str) -> None:
        nonlocal committed
        if statement.startswith(point) or (point == "later" and committed):
            reached()
        committed = statement == "COMMIT"

    return trace


def _die_in_export(point: str, reached: Callable[[], None]) -> None:
    """Wraps the steps of `files.replace_atomically`."""
    replace_file, fsync, sync_folder = Path.replace, os.fsync, files.sync_folder

    def begin(path: Path, target: Path) -> Path:
        if point == "export synced":
            reached()
        done = replace_file(path, target)
        if point == "export renamed":
            reached()
        return done

    def sync(descriptor: int) -> None:
        if point == "export begins":
            reached()
        fsync(descriptor)

    def finish(folder: Path) -> None:
        sync_folder(folder)
        if point == "export done":
            reached()

    Path.replace = begin  # type: ignore[method-assign,assignment]
    os.fsync = sync  # type: ignore[assignment]
    files.sync_folder = finish
