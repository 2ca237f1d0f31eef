"""Servers that speak TLS: an authority of our own, certificates that are not trusted, files that are missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from selfinstruct_local.engines.endpoints import find_served_model
from selfinstruct_local.errors import EngineDeadError, UsageError
from tests.conftest import RunCli
from tests.engines.test_endpoints import assert_all_right, engine_over, requests
from tests.scripted_server import MODEL, ScriptedServer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class Authority:
    """An authority nobody knows, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *new_key, "-keyout", self._key, "-out", self.file, "-days", 2, "-subj", "/CN=Own")
        self._request = folder / "server.csr"
        openssl("req", *new_key, "-keyout", folder / "server.key", "-out", self._request, "-subj", "/CN=server")

    def sign(self, names: str) -> Path:
        """A server's key and certificate for names as openssl writes them, in one file."""
        signed, extensions = self.folder / "signed.pem", self.folder / "names"
        extensions.write_text(f"subjectAltName={names}")
        openssl(
            *("x509", "-req", "-in", self._request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", 2, "-extfile", extensions, "-out", signed),
        )
        whole = self.folder / "whole.pem"
        whole.write_text((self.folder / "server.key").read_text() + signed.read_text())
        return whole


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_authority_of_our_own_is_trusted_when_it_is_named(
    host: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(host=host, certificate=authority.sign("DNS:localhost,IP:127.0.0.1")) as server:
        with pytest.raises(EngineDeadError, match=r"certificate is not trusted \(.*SSL_CERT_FILE"):
            find_served_model([server.url], None, api_key=None, outage_seconds=0)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert find_served_model([server.url], None, api_key=None, outage_seconds=0) == MODEL
        assert_all_right(engine_over(server), requests(3))


def test_a_certificate_for_another_name_is_said(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with ScriptedServer(certificate=authority.sign("DNS:elsewhere.example")) as server:
        with pytest.raises(EngineDeadError, match=r"certificate is not trusted \(.*mismatch"):
            find_served_model([server.url], None, api_key=None, outage_seconds=0)
        with pytest.raises(EngineDeadError, match="certificate is not trusted"):
            list(engine_over(server, outage_seconds=0.3).generate(requests(1)))


def test_a_server_without_tls_is_said() -> None:
    with ScriptedServer() as server, pytest.raises(EngineDeadError, match="TLS failed"):
        find_served_model([server.url.replace("http", "https")], None, api_key=None, outage_seconds=0)


@pytest.mark.parametrize("kind", ["missing", "folder", "no certificate", "folder of them"])
def test_a_file_of_authorities_that_cannot_be_read_is_one_line(
    kind: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: RunCli
) -> None:
    named = tmp_path if kind == "folder" else tmp_path / "ca.pem"
    if kind == "no certificate":
        named.write_text("-----BEGIN CERTIFICATE-----\nnone\n")
    variable = "SSL_CERT_DIR" if kind == "folder of them" else "SSL_CERT_FILE"
    monkeypatch.setenv(variable, str(named))
    with ScriptedServer(certificate=authority.sign("IP:127.0.0.1")) as server:
        with pytest.raises(UsageError, match=rf"\${variable} {named}: "):
            find_served_model([server.url], None, api_key=None, outage_seconds=5)
        if kind == "missing":
            done = cli("generate", "--run", tmp_path / "run", "--endpoint", server.url)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1)
            assert "SSL_CERT_FILE" in done.stderr
    with ScriptedServer() as server:  # which needs none
        assert find_served_model([server.url], None, api_key=None, outage_seconds=0) == MODEL
