"""`selfinstruct doctor` as a process."""

import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.doctor import Wish, examine
from selfinstruct_local.models import ModelFolder
from tests.conftest import RunCli

ORDER = [
    "encoding", "clock", "python", "packages", "lock", "engine", "train", "report", "ray", "parquet", "gpu", "memory",
    "shared memory", "open files", "model", "weights", "tokenizer", "loading", "training", "checkpoints",
    "kernel cache", "kernels", "out", "file system", "disk", "sqlite", "offline", "proxies", "port",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_this_machine_is_fit(cli: RunCli, tmp_path: Path, embedded_model: ModelFolder) -> None:
    done = cli("doctor", "--model", embedded_model.path, "--out", tmp_path / "run", "--port", free_port(), "--json")
    told = orjson.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stderr
    found = {each["check"]: each for each in told["findings"]}
    assert all(set(each) == {"check", "status", "detail", "mend"} for each in told["findings"])
    cards = [name for name in found if name == "driver" or name.startswith("gpu ")]
    assert [name for name in found if name not in cards] == [name for name in ORDER if name != "gpu" or not cards]
    counts = {status: sum(each["status"] == status for each in told["findings"]) for status in ("ok", "warn", "fail")}
    assert told["summary"] == {**counts, "fit": True}
    assert counts["fail"] == 0
    if not cards:
        assert found["gpu"]["status"] == "warn"
        assert "7B" in found["gpu"]["detail"]
    assert not (tmp_path / "run").exists()


def test_what_fails_is_told_in_plain_lines_and_by_the_exit_code(cli: RunCli, tmp_path: Path, bare_model: Path) -> None:
    (bare_model / "model.safetensors").rename(bare_model / "pytorch_model.bin")
    evil = bare_model.rename(tmp_path / "evil[red]\x1b[31mmodel")
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli(
            "doctor", "--model", evil, "--out", tmp_path / "file", "--port", port,
            "--endpoint", f"http://127.0.0.1:{free_port()}/v1",
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    failed = {line[6:19].strip(): line for line in lines if line.startswith("fail")}
    assert set(failed) == {"model", "out", "port", "endpoint"}
    assert "evil[red]\\x1b[31mmodel" in failed["model"]
    assert f"--port {port}: address already in use — name another" in failed["port"]
    assert lines[-1].startswith("not ready: ")
    assert lines[-1].endswith(", 4 fail")


def test_a_wrong_flag_is_wrong_use(cli: RunCli) -> None:
    preset = cli("doctor", "--preset", "none-such")
    assert (preset.returncode, "--preset none-such" in preset.stderr, preset.stdout) == (2, True, "")
    url = cli("doctor", "--endpoint", "file:///etc")
    assert (url.returncode, "--endpoint file:///etc" in url.stderr, url.stdout) == (2, True, "")


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_alone(more: dict[str, str], *, coloured: bool) -> None:
    code = (
        "from selfinstruct_local.cli.doctor import _print; from selfinstruct_local.doctor import Finding; "
        "_print([Finding('out', 'fail', '[bold]x', 'y')])"
    )
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, env={**plain, "TERM": "xterm", **more}, check=True)
        os.close(theirs)
        said = terminal.read(4096)
    assert b"[bold]x" in said
    assert (b"\x1b[31mfail\x1b[0m  out" in said) == coloured
    assert (b"\x1b" in said) == coloured


def test_a_missing_library_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("rouge_score.rouge_scorer", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    found = {each.check: each for each in examine(Wish(model="none-such", out=tmp_path, port=free_port()))}
    assert found["gpu"].status == "warn"
    assert found["similarity"].status == "fail"
    assert "rouge_score.rouge_scorer cannot be imported" in found["similarity"].detail
    assert found["port"].status == "ok"
