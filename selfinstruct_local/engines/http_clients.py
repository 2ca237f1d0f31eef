"""HTTP clients for many concurrent requests, and the only place where requests are sent.

httpx's connection pool scans all its connections on every request. With 256 requests in flight a request took 17 ms of
CPU time with one shared client, and takes 3 ms with a separate client per concurrent request.
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
# Shorter than the 5 s after which vLLM's server closes an idle connection: a connection that is closed just as the next
# request is sent looks like a server failure.
KEEP_ALIVE_SECONDS = 2.0
MAX_ANSWER_BYTES = 64 * 2**20  # a completion of a million tokens with log-probabilities is smaller
_OTHER_FILES = 128


class UnreachableError(Exception):
    """A server gave no valid response; the message says why.

    Attributes:
        connected: whether the server accepted the connection.
    """

    def __init__(self, reason: str, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.connected = connected


class Answer(NamedTuple):
    """The raw response of a server."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def status_line(self) -> str:
        """The status code with its standard phrase, because a server may send any phrase."""
        return f"{self.status} {httpx.codes.get_reason_phrase(self.status)}".rstrip()

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.content.decode("utf-8", "replace")


class HttpClients:
    """HTTP clients for one server, one per concurrent request, reused between requests."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """Prepare the connection settings without creating a client.

        Args:
            url: base URL of the server.
            api_key: key sent as a bearer token with every request; None sends none.

        Raises:
            UsageError: the key, a proxy variable or SSL_CERT_FILE is invalid.
        """
        self._url = url
        self._api_key = api_key
        self._headers = authorization(api_key)
        proxy = proxy_for(url)
        needs_certificates = any(each.startswith("https:") for each in (url, proxy or ""))
        # An empty context trusts no certificate; a full one is slow to create, so all clients share it.
        self._context = trusted_certificates() if needs_certificates else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        secure = proxy is not None and proxy.startswith("https:")
        self._proxy = httpx.Proxy(proxy, ssl_context=self._context if secure else None) if proxy else None
        self._free: list[httpx.AsyncClient] = []
        self._made: list[httpx.AsyncClient] = []

    async def send(self, method: str, url: str, content: bytes | None = None) -> Answer:
        """Send one request and return the whole response.

        Args:
            method: GET or POST.
            url: URL below the server's base URL.
            content: JSON body.

        Raises:
            UnreachableError: there is no response, or it is too long; the message never contains the key.
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
                            message = f"the response is larger than {MAX_ANSWER_BYTES >> 20} MiB"
                            raise UnreachableError(message)
        # httpx does not wrap the errors of a TLS alert during a connection and of an overlong host name.
        except (httpx.RequestError, OSError, UnicodeError) as error:
            connected = not isinstance(
                error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, UnicodeError)
            )
            raise UnreachableError(without_key(_describe(error), self._api_key), connected=connected) from error
        return Answer(response.status_code, response.headers, b"".join(parts))

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._made:
            await client.aclose()

    @contextmanager
    def _lend(self) -> Iterator[httpx.AsyncClient]:
        """Provide a client for one request, the most recently used one if any is free."""
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
    """Return a TLS context that trusts the certificates in SSL_CERT_FILE or SSL_CERT_DIR, or else certifi's.

    Raises:
        UsageError: the file or folder cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return httpx.create_ssl_context(trust_env=False)
    try:
        if not file and folder and not Path(folder).is_dir():
            raise NotADirectoryError(0, "no such folder")
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    except (OSError, ValueError) as error:
        reason = "contains no certificates" if isinstance(error, (ssl.SSLError, ValueError)) else error.strerror
        variable, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
        message = f"${variable} {value}: {str(reason).lower()}; set it to the certificates of the authorities to trust"
        raise UsageError(message) from error


def _describe(error: BaseException) -> str:
    """Return the cause of a connection error, in the system's words if it has any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message}); set $SSL_CERT_FILE to its authority"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({(cause.reason or 'unknown reason').replace('_', ' ').lower()})"
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror).lower()
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def allow_connections(count: int) -> None:
    """Raise this process's open-file limit, often 1,024, for `count` connections, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
