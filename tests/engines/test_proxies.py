"""Proxy variables: for far servers only, whatever this machine is called; unusable ones are one line."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_local.doctor.network import check_endpoint, check_proxies
from selfinstruct_local.engines.endpoints import find_served_model
from selfinstruct_local.engines.proxies import is_this_machine, proxy_for
from selfinstruct_local.errors import EngineDeadError, UsageError
from tests.conftest import RunCli
from tests.engines.test_endpoints import assert_all_right, engine_over, free_port, requests
from tests.scripted_server import MODEL, ScriptedServer

ANY = "0.0.0.0"  # noqa: S104 - a server may listen there, and be named so
PROXY = "http://user:hush@192.0.2.7:3128"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
SetProxies = Callable[..., None]


@pytest.fixture
def set_proxies(monkeypatch: pytest.MonkeyPatch) -> SetProxies:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


HERE = [
    *("127.0.0.1", "127.1", "127.8.8.8", ANY, "0", "2130706433", "0x7f.1", "017700000001"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"),
    *("localhost", "LOCALHOST", "localhost.", "api.localhost", socket.gethostname()),
]


@pytest.mark.parametrize("host", HERE)
def test_no_proxy_stands_before_this_machine(host: str, set_proxies: SetProxies) -> None:
    set_proxies(HTTP_PROXY=PROXY, HTTPS_PROXY=PROXY, ALL_PROXY=PROXY)
    assert [proxy_for(f"{scheme}://{host}:8000/v1") for scheme in ("http", "https")] == [None, None]


def test_own_addresses_are_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells the address that would be used
        except OSError:
            pytest.skip("this machine has loopback only")
        assert is_this_machine(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["127.1", ANY, "[::ffff:127.0.0.1]", socket.gethostname()])
def test_servers_here_are_asked_directly(host: str, set_proxies: SetProxies) -> None:
    set_proxies(HTTP_PROXY=f"http://127.0.0.1:{free_port()}", ALL_PROXY="socks5://127.0.0.1:9")
    with ScriptedServer(host=ANY) as server:
        url = f"http://{host}:{server.port}/v1"
        try:
            assert find_served_model([url], None, api_key=None, outage_seconds=0) == MODEL
        except EngineDeadError:
            pytest.skip("this machine does not know that name")
        assert_all_right(engine_over(url), requests(2))


def test_a_far_server_is_asked_through_the_proxy(set_proxies: SetProxies) -> None:
    with ScriptedServer() as proxy:
        set_proxies(HTTP_PROXY=f"127.0.0.1:{proxy.port}")
        with pytest.raises(UsageError, match=r"far\.invalid"):
            find_served_model(["http://far.invalid/v1"], None, api_key=None, outage_seconds=0)
        assert proxy.looked == 1


EXCLUDED = [
    ("*", "http://far.invalid/v1"),
    ("a.invalid, far.invalid", "http://far.invalid/v1"),
    ("far.invalid", "http://gpu1.far.invalid:8000/v1"),
    (".far.invalid", "http://gpu1.far.invalid/v1"),
    ("*.FAR.invalid", "http://gpu1.far.invalid/v1"),
    ("far.invalid:8000", "http://far.invalid:8000/v1"),
    ("far.invalid:443", "https://far.invalid/v1"),
    ("http://far.invalid", "http://far.invalid/v1"),
    ("192.0.2.0/24", "http://192.0.2.9/v1"),
    ("192.0.2.9", "http://[::ffff:192.0.2.9]/v1"),
    ("2001:db8::/32", "http://[2001:db8::7]:8000/v1"),
    ("[2001:db8::]/32", "http://[2001:db8::7]/v1"),
    ("fd00::/8,2001:db8::7", "http://[2001:db8:0::7]/v1"),
    ("[2001:db8::7]:8000", "http://[2001:db8::7]:8000/v1"),
]
INCLUDED = [
    ("", "http://far.invalid/v1"),
    (",", "http://far.invalid/v1"),
    ("ar.invalid", "http://far.invalid/v1"),
    ("far.invalid:8001", "http://far.invalid:8000/v1"),
    ("https://far.invalid", "http://far.invalid/v1"),
    ("192.0.2.0/24", "http://192.0.3.9/v1"),
    ("fd00::/8, ::1/128, 10.0.0.0/8", "http://[2001:db8::7]/v1"),
    ("fd00::/999, [, ::/::, %", "http://far.invalid/v1"),
]


@pytest.mark.parametrize(("no_proxy", "url"), EXCLUDED)
def test_hosts_and_ranges_can_be_excluded(no_proxy: str, url: str, set_proxies: SetProxies) -> None:
    set_proxies(ALL_PROXY=PROXY, NO_PROXY=no_proxy)
    assert proxy_for(url) is None


@pytest.mark.parametrize(("no_proxy", "url"), INCLUDED)
def test_other_hosts_take_the_proxy(no_proxy: str, url: str, set_proxies: SetProxies) -> None:
    set_proxies(ALL_PROXY=PROXY, NO_PROXY=no_proxy)
    assert proxy_for(url) == PROXY


def test_the_variable_of_the_scheme_goes_before_that_of_all(set_proxies: SetProxies) -> None:
    set_proxies(HTTPS_PROXY=PROXY, ALL_PROXY="http://192.0.2.8")
    assert proxy_for("https://far.invalid/v1") == PROXY
    assert proxy_for("http://far.invalid/v1") == "http://192.0.2.8"


@pytest.mark.parametrize(
    "proxy", ["socks5://u:hush@192.0.2.7:1", "socks4://u:hush@h", "ftp://u:hush@h", "http://u:hush@[::1"]
)
def test_a_proxy_that_cannot_be_used_is_one_line(
    proxy: str, set_proxies: SetProxies, tmp_path: Path, cli: RunCli
) -> None:
    set_proxies(ALL_PROXY=proxy)
    with pytest.raises(UsageError, match=r"\$ALL_PROXY: ") as caught:
        proxy_for("http://192.0.2.9/v1")
    assert "hush" not in str(caught.value)
    if proxy.startswith("socks5"):
        done = cli("generate", "--run", tmp_path, "--endpoint", "http://192.0.2.9/v1")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert [
            check("http://192.0.2.9/v1").status for check in (check_endpoint, lambda url: check_proxies([url]))
        ] == [
            "fail",
            "fail",
        ]
