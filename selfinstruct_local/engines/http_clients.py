"""HTTP clients for many requests in flight at a time, and the one place where a request is sent.

httpx's connection pool looks through all of its connections with every request: with 256 in flight a request took
17 ms of CPU that way, and takes 3 ms when each has a client of its own for as long as it lasts.
"""

import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from selfinstruct_local.engines.keys import authorization, without_key
from selfinstruct_local.engines.proxies import proxy_for
from selfinstruct_local.errors import UsageError

CONNECT_SECONDS = 10.0
# Shorter than the 5 s after which vLLM's server closes an idle connection: one that is closed just as the next request
# goes out looks like a server that died.
KEEP_ALIVE_SECONDS = 2.0
MAX_ANSWER_BYTES = 64 * 2**20  # a completion of a million tokens with their log-probabilities has fewer
_OTHER_FILES = 128


class UnreachableError(Exception):
    """A server gave no usable answer; the text says why.

    Attributes:
        connected: it took the request.
    """

    def __init__(self, reason: str, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.connected = connected


class Answer(NamedTuple):
    """What a server answered, as it came."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def status_line(self) -> str:
        """The status with its standard phrase; a server may put any words there."""
        return f"{self.status} {httpx.codes.get_reason_phrase(self.status)}".rstrip()

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


class HttpClients:
    """Clients for one server, lent to one request at a time; as many are made as were ever lent at once."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """Makes none yet.

        Args:
            url: base URL of the server.
            api_key: sent as a bearer token with every request; None sends none.

        Raises:
            UsageError: the key, a proxy variable or SSL_CERT_FILE cannot be used.
        """
        self._url = url
        self._api_key = api_key
        self._headers = authorization(api_key)
        proxy = proxy_for(url)
        needs_certificates = any(each.startswith("https:") for each in (url, proxy or ""))
        # An empty context trusts nobody; the full one is slow to make, so all clients share it.
        self._context = trusted_certificates() if needs_certificates else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        secure = proxy is not None and proxy.startswith("https:")
        self._proxy = httpx.Proxy(proxy, ssl_context=self._context if secure else None) if proxy else None
        self._free: list[httpx.AsyncClient] = []
        self._made: list[httpx.AsyncClient] = []

    async def send(self, method: str, url: str, content: bytes | None = None) -> Answer:
        """Return the whole answer to one request.

        Args:
            method: GET or POST.
            url: below the server's address.
            content: JSON.

        Raises:
            UnreachableError: there is none, or it is too long; the text never holds the key.
        """
        headers = {} if content is None else {"Content-Type": "application/json"}
        parts: list[bytes] = []
        size = 0
        try:
            with self._lend() as client:
                async with client.stream(method, url, content=content, headers=headers) as response:
                    async for part in response.aiter_bytes():
                        parts.append(part)
                        size += len(part)
                        if size > MAX_ANSWER_BYTES:
                            message = f"answers more than {MAX_ANSWER_BYTES >> 20} MiB"
                            raise UnreachableError(message)
        # A TLS alert in the middle of a connection and a host name that is too long get past httpx as they are.
        except (httpx.RequestError, OSError, UnicodeError) as error:
            connected = not isinstance(
                error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, UnicodeError)
            )
            raise UnreachableError(without_key(_describe(error), self._api_key), connected=connected) from error
        return Answer(response.status_code, response.headers, b"".join(parts))

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in self._made:
            await client.aclose()

    @contextmanager
    def _lend(self) -> Iterator[httpx.AsyncClient]:
        """A client for one request, the one last used if there is any."""
        client = self._free.pop() if self._free else self._make()
        try:
            yield client
        finally:
            self._free.append(client)

    def _make(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            trust_env=False,
            proxy=self._proxy,
            verify=self._context,
            headers=self._headers,
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_SECONDS),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )
        self._made.append(client)
        return client


def trusted_certificates() -> ssl.SSLContext:
    """Return a TLS context that trusts what SSL_CERT_FILE or SSL_CERT_DIR names, or else certifi's authorities.

    Raises:
        UsageError: what they name cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return httpx.create_ssl_context(trust_env=False)
    try:
        if not file and folder and not Path(folder).is_dir():
            raise NotADirectoryError(0, "no such folder")
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    except (OSError, ValueError) as error:
        reason = "no certificates in it" if isinstance(error, (ssl.SSLError, ValueError)) else error.strerror
        variable, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
        message = f"${variable} {value}: {str(reason).lower()}; name the certificates of the authorities to trust"
        raise UsageError(message) from error


def _describe(error: BaseException) -> str:
    """What went wrong on the way to a server, in the words of the system where it has any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}); name its authority in $SSL_CERT_FILE"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({(cause.reason or 'unknown reason').replace('_', ' ').lower()})"
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror).lower()
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def allow_connections(count: int) -> None:
    """Raises this process's limit of open files, as far as the system lets it; 1,024 is common, and each takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
