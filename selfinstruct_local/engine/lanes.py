"""HTTP clients for many requests in flight at a time.

httpx's connection pool looks through all of its connections with every request: with 256 in flight a request took
17 ms of CPU that way, and takes 3 ms when each has a client of its own for as long as it lasts.
"""

import ipaddress
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

CONNECT_SECONDS = 10.0
# Shorter than the 5 s after which vLLM's server closes an idle connection: one that is closed just as the next request
# goes out looks like a server that died.
KEEP_ALIVE_SECONDS = 2.0
_OTHER_FILES = 128


class Lanes:
    """Clients that are lent to one request at a time; as many are made as were ever lent at once."""

    def __init__(self, *, near: bool, headers: dict[str, str]) -> None:
        """Makes none yet.

        Args:
            near: for servers on this machine, which proxy variables do not concern.
            headers: sent with every request.
        """
        self._near = near
        self._headers = headers
        self._certificates = httpx.create_ssl_context(trust_env=not near)  # slow to make, so they share it
        self._free: list[httpx.AsyncClient] = []
        self._made: list[httpx.AsyncClient] = []

    @contextmanager
    def lend(self) -> Iterator[httpx.AsyncClient]:
        """A client for one request, the one last used if there is any."""
        client = self._free.pop() if self._free else self._make()
        try:
            yield client
        finally:
            self._free.append(client)

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in self._made:
            await client.aclose()

    def _make(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            trust_env=not self._near,
            verify=self._certificates,
            headers=self._headers,
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_SECONDS),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )
        self._made.append(client)
        return client


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allow_connections(count: int) -> None:
    """Raises this process's limit of open files, as far as the system lets it; 1,024 is common, and each takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
