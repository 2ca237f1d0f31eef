"""Faults of the machine and of people, on the command line as a process: signals, full disks, limits, second processes.

The engine is a scripted server; the commands, the database and the faults are real.
"""

import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.generate.run import EXPORT
from selfinstruct_local.runs.store import DATABASE, MIGRATIONS
from tests.conftest import RunCli
from tests.scripted_server import ScriptedServer

FLAGS = ("--window", 8, "--in-flight", 4)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(latency=0.02) as started:
        yield started


def command(server: ScriptedServer, run: Path, *more: object, num: int = 30) -> list[str]:
    arguments = ("generate", "--run", run, "--endpoint", server.url, "--num", num, "--profile", "alpaca", *FLAGS, *more)
    return [sys.executable, "-m", "selfinstruct_local", *map(str, arguments)]


def start(words: list[str], **how: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload,no-any-return]


def finish(words: list[str], **how: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **how)  # type: ignore[call-overload,no-any-return]


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def count(run: Path, table: str) -> int:
    if not (run / DATABASE).exists():
        return 0
    database = sqlite3.connect(run / DATABASE)
    try:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names
    except sqlite3.OperationalError:
        return 0  # the table is not made yet
    finally:
        database.close()


def sound(run: Path) -> bool:
    database = sqlite3.connect(run / DATABASE)
    try:
        return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        database.close()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a run of 30 that nothing happened to gives."""
    run = tmp_path_factory.mktemp("straight") / "run"
    with ScriptedServer() as server:
        done = finish(command(server, run))
    assert done.returncode == 0, done.stderr
    assert "30 tasks in" in done.stderr or "tasks in" in done.stderr
    return (run / EXPORT).read_bytes()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_its_commit_and_the_same_command_goes_on(
    server: ScriptedServer, tmp_path: Path, straight: bytes, signum: signal.Signals, code: int
) -> None:
    process = start(command(server, tmp_path))
    wait_until(lambda: count(tmp_path, "jobs") >= 3)
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert re.search(r"^run: \d+ of 30 tasks accepted, ", stderr, re.MULTILINE)
    assert sound(tmp_path)
    assert orjson.loads((tmp_path / EXPORT).read_bytes())
    assert stdout.strip() == str(tmp_path / EXPORT)
    assert finish(command(server, tmp_path)).returncode == 0
    assert (tmp_path / EXPORT).read_bytes() == straight


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with ScriptedServer(latency=0.02, script="ok*5 stall*") as server:
        process = start(command(server, tmp_path))
        wait_until(lambda: count(tmp_path, "completions") >= 5)
        # The loop gets its turn several times a second, so the second signal has to follow the first at its heels.
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=30)
        assert process.returncode in {130, 143}, stderr
        assert time.monotonic() - began < 10
    assert sound(tmp_path)


def test_a_second_process_on_a_run_ends_at_once(server: ScriptedServer, tmp_path: Path) -> None:
    server.latency = 1.0
    process = start(command(server, tmp_path))
    wait_until(lambda: count(tmp_path, "jobs") >= 1)
    second = finish(command(server, tmp_path))
    assert second.returncode == 2
    assert f"--run {tmp_path}: another process is using this run" in second.stderr
    shown = finish([sys.executable, "-m", "selfinstruct_local", "runs", "show", str(tmp_path)])
    assert f"{tmp_path}: running" in shown.stdout
    process.kill()
    process.communicate(timeout=30)
    shown = finish([sys.executable, "-m", "selfinstruct_local", "runs", "show", str(tmp_path)])
    assert f"{tmp_path}: killed" in shown.stdout


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    server: ScriptedServer, tmp_path: Path, straight: bytes
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    words = " ".join(map(repr, command(server, mount / "run")))
    script = (
        f"mount -t tmpfs -o size=200k tmpfs {mount} && {words}; echo full: $?; "
        f"mount -o remount,size=100m {mount} && {words}; echo room: $?; cp {mount}/run/* {tmp_path}"
    )
    if finish(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(mount)]).returncode != 0:
        pytest.skip("no disk was filled: this machine lets a test mount no file system (unshare -rm)")
    done = finish(["unshare", "-rm", "sh", "-c", script])
    assert "full: 1" in done.stdout, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "room: 0" in done.stdout
    assert sound(tmp_path)
    assert (tmp_path / EXPORT).read_bytes() == straight


@pytest.mark.parametrize("limit", [80_000, 200_000])
def test_a_limit_on_the_size_of_files_stops_the_run_and_its_end_lets_it_go_on(
    server: ScriptedServer, tmp_path: Path, straight: bytes, limit: int
) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = finish(command(server, tmp_path), preexec_fn=lower)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr
    assert "limit on the size of files" in done.stderr or "free disk space" in done.stderr
    assert finish(command(server, tmp_path)).returncode == 0
    assert sound(tmp_path)
    assert (tmp_path / EXPORT).read_bytes() == straight


def test_an_output_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.json"
    source.write_text(
        "\n".join(f'{{"instruction": "Name {n} towns of land {n}", "output": "{n}"}}' for n in range(5000))
    )
    out.write_text("old")
    words = [sys.executable, "-m", "selfinstruct_local", "filter", source, "--rules", "none", "--out", out]
    done = finish(list(map(str, words)), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2))
    assert done.returncode == 1, done.stderr
    assert f"{out}: cannot be written (file too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_interrupted_export_left_aside_is_ignored(server: ScriptedServer, tmp_path: Path) -> None:
    assert finish(command(server, tmp_path, num=5)).returncode == 0
    old = (tmp_path / EXPORT).read_bytes()
    (tmp_path / f".{EXPORT}.x1y2.tmp").write_bytes(old[:100])
    (tmp_path / EXPORT).unlink()
    assert finish(command(server, tmp_path, num=5)).returncode == 0
    assert (tmp_path / EXPORT).read_bytes() == old


def test_a_reader_that_goes_away_leaves_no_traceback(server: ScriptedServer, tmp_path: Path) -> None:
    assert finish(command(server, tmp_path, num=5)).returncode == 0
    for words in ("runs show", "runs show --json"):
        script = f"{sys.executable} -m selfinstruct_local {words} {tmp_path} | head -1"
        done = finish(["bash", "-c", script])
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""


def flip_a_byte(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 2 + 64] = b"\xff" * 64
    database.write_bytes(bytes(content))


def make_newer(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()


@pytest.mark.parametrize(("spoil", "said"), [(flip_a_byte, "run.sqlite cannot be read"), (make_newer, "newer version")])
def test_a_database_that_cannot_be_used_is_left_alone(
    server: ScriptedServer, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    assert finish(command(server, tmp_path, num=5)).returncode == 0
    spoil(tmp_path / DATABASE)
    before = (tmp_path / DATABASE).read_bytes()
    done = finish(command(server, tmp_path, num=10))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / DATABASE).read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_asked(
    server: ScriptedServer, tmp_path: Path
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    done = finish(command(server, blocker / "run"))
    assert done.returncode == 2
    assert "the folder cannot be written to" in done.stderr
    assert server.asked == []


def test_executing_settings_may_change_and_are_noted(
    server: ScriptedServer, tmp_path: Path, straight: bytes, cli: RunCli
) -> None:
    assert finish(command(server, tmp_path, num=10)).returncode == 0
    assert finish(command(server, tmp_path, "--in-flight", 2, "--patience", 77, num=30)).returncode == 0
    assert (tmp_path / EXPORT).read_bytes() == straight
    summary = orjson.loads(cli("runs", "show", tmp_path, "--json").stdout)
    assert [each["settings"]["engine"]["in_flight"] for each in summary["sessions"]] == [4, 2]
    assert [each["settings"]["patience"] for each in summary["sessions"]] == [200, 77]
    done = finish(command(server, tmp_path, "--threshold", 0.5, num=40))
    assert done.returncode == 2
    assert "threshold: 0.7 in the run, 0.5 now" in done.stderr
    assert "--fork NEWRUN" in done.stderr


def test_a_run_that_finds_nothing_new_stops_and_says_why(server: ScriptedServer, tmp_path: Path) -> None:
    server.latency = 0.0
    done = finish(command(server, tmp_path, "--threshold", 0.2, "--patience", 6, num=100_000))
    assert done.returncode == 3, done.stderr
    assert "in 6 consecutive jobs" in done.stderr
    assert re.search(r"\(rejected: \d+ not_novel, ", done.stderr)
    assert "Traceback" not in done.stderr
    assert count(tmp_path, "jobs") < 200


def test_two_servers_one_of_them_broken(server: ScriptedServer, tmp_path: Path, straight: bytes) -> None:
    with ScriptedServer(script="500*3 torn close garbage 429 500*") as broken:
        done = finish(command(server, tmp_path, "--endpoint", broken.url))
    assert done.returncode == 0, done.stderr
    assert broken.url in done.stderr
    assert (tmp_path / EXPORT).read_bytes() == straight


def test_no_server_there_is_said(tmp_path: Path, cli: RunCli) -> None:
    gone = ScriptedServer()
    gone.close()
    done = cli("generate", "--run", tmp_path, "--endpoint", gone.url, "--outage-seconds", 1, *FLAGS)
    assert done.returncode in {1, 2}
    assert gone.url in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
