import socket
from functools import partial
from pathlib import Path

import pytest

from selfinstruct_local.doctor import network
from selfinstruct_local.engines.serve import ServeSettings
from tests.scripted_server import CONTEXT, MODEL, ScriptedServer


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_switches_are_in_force_in_a_child() -> None:
    assert network.check_offline().status == "ok"


def test_a_switch_that_is_not_in_force_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    finding = network.check_offline()
    assert finding.status == "fail"
    assert finding.detail.endswith(": HF_HUB_OFFLINE, VLLM_NO_USAGE_STATS")


def test_a_site_that_puts_a_library_online_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['TRANSFORMERS_OFFLINE'] = '0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = network.check_offline()
    assert finding.status == "fail"
    assert "TRANSFORMERS_OFFLINE" in finding.detail


def test_a_child_that_cannot_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert network.check_offline().status == "fail"


def test_proxies_are_told_where_a_named_server_is_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    far, near = "http://gpu.example:8000/v1", "http://127.0.0.1:8000/v1"
    assert network.check_proxies([far]).status == "ok"
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy.example:3128")
    assert network.check_proxies([]).status == "ok"
    assert network.check_proxies([near]).status == "ok"
    finding = network.check_proxies([near, far])
    assert finding.status == "warn"
    assert far in finding.detail
    assert near not in finding.detail
    assert "secret" not in repr(finding)
    monkeypatch.setenv("NO_PROXY", "gpu.example")
    assert network.check_proxies([far]).status == "ok"


def test_a_port_that_is_taken_fails_until_it_is_let_go() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = network.check_port(port)
        assert finding.status == "fail"
        assert f"--port {port}: address already in use" in finding.detail
        assert finding.mend == "name another"
    assert network.check_port(port).status == "ok"


def test_a_taken_port_that_nobody_asked_for_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may run there already, for the work that the machine is looked at for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("selfinstruct_local.engines.serve.ServeSettings", partial(ServeSettings, port=port))
        finding = network.check_port(None)
    assert (finding.status, str(port) in finding.detail) == ("warn", True)


def test_a_server_is_asked_what_it_serves() -> None:
    with ScriptedServer() as server:
        finding = network.check_endpoint(server.url)
        assert (finding.status, finding.detail) == ("ok", f"{server.url}: serves {MODEL} ({CONTEXT} tokens)")
        wrong = network.check_endpoint(server.url.removesuffix("/v1") + "/v2")
        assert wrong.status == "fail"
    gone = network.check_endpoint(server.url)
    assert gone.status == "fail"
    assert "connection refused" in gone.detail
