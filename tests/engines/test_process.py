"""The engine's process, really killed, stopped and starved. The engine inside is the scripted one."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from selfinstruct_local.engines import Completion, Engine, Request, RequestKey, Sampling
from selfinstruct_local.engines.process import CLOSE_SECONDS, LOOKAHEAD, EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError, OutOfMemoryError, UsageError
from tests.scripted_engine import ScriptedEngine, answer

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=8)


def requests(count: int) -> list[Request]:
    return [Request(RequestKey(job, "tasks", 0), f"prompt {job}", SAMPLING) for job in range(count)]


def start(make_engine: Callable[[], Engine], log: Path | None = None, **settings: float) -> EngineProcess:
    chosen = EngineSettings(**{"in_flight": 4, "hang_seconds": 2.0, **settings})
    process = EngineProcess(make_engine, chosen, {"engine": "scripted"}, log)
    process.wait_until_ready()
    return process


def refuse_to_start(error: Exception) -> Engine:
    raise error


class Mute(ScriptedEngine):
    """Never comes back from its first step."""

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        time.sleep(1000)
        yield from super().generate(requests)


class Deaf(ScriptedEngine):
    """Waits without end for a process of its own, as vLLM does for its core on a GPU."""

    def __init__(self, pid_file: Path) -> None:
        super().__init__()
        core = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,))
        core.start()
        pid_file.write_text(str(core.pid))

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        next(iter(requests))
        time.sleep(1000)
        yield from super().generate(requests)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def test_it_answers_as_the_engine_inside_does() -> None:
    with start(ScriptedEngine) as engine:
        found = [each for batch in engine.generate(requests(50)) for each in batch]
        again = [each for batch in engine.generate(requests(3)) for each in batch]
    assert sorted(found, key=lambda each: each.key) == [answer(request) for request in requests(50)]
    assert len(again) == 3


def test_no_more_is_pulled_than_the_engine_holds_and_a_little() -> None:
    pulled: list[int] = []

    def source() -> Iterator[Request]:
        for request in requests(1000):
            pulled.append(request.key.job)
            yield request

    with start(partial(ScriptedEngine, latency=0.2)) as engine:
        batches = engine.generate(source())
        next(batches)
        assert len(pulled) == 4 + LOOKAHEAD
        batches.close()


def test_a_source_with_nothing_at_the_moment_gets_its_turn_at_once() -> None:
    with start(ScriptedEngine) as engine:
        batches = engine.generate(iter([None, *requests(1)]))
        assert next(batches) == []
        assert [each.key.job for batch in batches for each in batch] == [0]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP], ids=lambda each: each.name)
def test_an_engine_that_dies_or_hangs_is_replaced_and_asked_again(
    signum: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with start(partial(ScriptedEngine, latency=0.05)) as engine:
        hit, found = engine.pid, []
        for batch in engine.generate(requests(20)):
            found += batch
            if len(found) >= 5 and engine.pid == hit:
                os.killpg(hit, signum)
        assert engine.pid != hit
        assert not alive(hit)
    assert sorted(found, key=lambda each: each.key) == [answer(request) for request in requests(20)]
    why = "for 2 s" if signum == signal.SIGSTOP else f"by {signum.name}"
    assert re.search(rf"the engine .*{why}.*\(1 of 3\)", caplog.text)


def test_an_engine_that_dies_again_and_again_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with (
        start(partial(ScriptedEngine, die_after=0), restarts=2) as engine,
        pytest.raises(EngineDeadError, match=r"the engine stopped: scripted; .*\b2 time\(s\)"),
    ):
        list(engine.generate(requests(1)))
    assert caplog.text.count("restarting it") == 2


def test_an_engine_that_never_says_a_word_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with start(Mute, restarts=1, hang_seconds=0.5) as engine, pytest.raises(EngineDeadError, match=r"for 0 s; .*\b1 t"):
        list(engine.generate(requests(1)))
    assert "(1 of 1)" in caplog.text


@pytest.mark.parametrize("error", [UsageError("no vLLM here"), OutOfMemoryError("lower --in-flight")])
def test_what_cannot_be_mended_by_starting_again_is_said_at_once(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        start(partial(refuse_to_start, error))


def test_a_defect_of_the_engine_at_its_start_stands_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with pytest.raises(EngineDeadError, match=r"did not start: .*code 1; .*engine\.log"):
        start(partial(refuse_to_start, ZeroDivisionError("a defect")), log)
    assert "ZeroDivisionError: a defect" in log.read_text()


def test_waiting_for_the_start_can_be_broken_off() -> None:
    engine = EngineProcess(partial(time.sleep, 1000), EngineSettings(), {})  # type: ignore[arg-type]
    engine.wait_until_ready(lambda: False)
    engine.close()
    assert not alive(engine.pid)


def test_closing_with_requests_in_flight_ends_the_child() -> None:
    engine = start(partial(ScriptedEngine, latency=30))
    batches = engine.generate(requests(3))
    next(batches)
    began = time.monotonic()
    batches.close()
    engine.close()
    assert not alive(engine.pid)
    assert time.monotonic() - began < CLOSE_SECONDS + 3


def test_a_process_of_the_engine_that_dies_is_noticed_before_it_counts_as_hung(tmp_path: Path) -> None:
    engine = start(partial(Deaf, tmp_path / "pid"), hang_seconds=300, restarts=0)
    batches = engine.generate(requests(1))
    next(batches)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    with pytest.raises(EngineDeadError, match="SIGKILL"):
        list(batches)


def test_the_engine_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        """
import os, signal
from functools import partial
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from tests.engines.test_process import requests
from tests.scripted_engine import ScriptedEngine

if __name__ == "__main__":
    engine = EngineProcess(partial(ScriptedEngine, latency=1000), EngineSettings(), {})
    engine.wait_until_ready()
    next(engine.generate(requests(1)))
    print(engine.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
