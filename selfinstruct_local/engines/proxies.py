"""Choose the proxy of a request to a server: from the proxy variables, and none for this machine.

The variables are read here and not by httpx, which fails on a NO_PROXY with an IPv6 range and knows only one name of
this machine. The values of the proxy variables may contain passwords and never appear in messages.
"""

import importlib.util
import ipaddress
import os
import re
import socket
import urllib.request

import httpx

from selfinstruct_local.errors import UsageError

_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):(\d+)")


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for requests to `url`, or None for a direct connection.

    Host names are resolved only if a proxy would be used.

    Raises:
        UsageError: a proxy variable is invalid or its proxy is not supported.
    """
    proxies = urllib.request.getproxies()
    target = httpx.URL(url)
    kind = next((kind for kind in (target.scheme, "all") if proxies.get(kind)), None)
    if kind is None or _is_excluded(target, proxies.get("no", "")) or is_this_machine(target.raw_host.decode()):
        return None
    return _checked(kind, proxies[kind])


def is_this_machine(host: str) -> bool:
    """Return whether a host name or address, in any form that the system accepts, belongs to this machine."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # unknown or invalid name
        return False
    return any(_is_own(str(address[0])) for *_, address in found)


def _is_own(address: str) -> bool:
    parsed = _unmapped(address.partition("%")[0])
    if parsed.is_loopback or parsed.is_unspecified:
        return True
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the version of IP
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(parsed), 0))  # the system allows this only for its own addresses
    except OSError:
        return False
    return True


def _unmapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address)
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _is_excluded(target: httpx.URL, no_proxy: str) -> bool:
    """Return whether NO_PROXY matches: `*`, host, parent domain, address or range, with or without a port."""
    host = target.host.rstrip(".").lower()
    port = target.port or {"http": 80, "https": 443}.get(target.scheme)
    return any(_names(entry, target.scheme, host, port) for entry in re.split(r"[,\s]+", no_proxy.lower()))


def _names(entry: str, scheme: str, host: str, port: int | None) -> bool:
    wanted, found, rest = entry.partition("://")
    if found:
        if wanted not in {scheme, "all"}:
            return False
        entry = rest
    if with_port := _WITH_PORT.fullmatch(entry):
        if int(with_port[2]) != port:
            return False
        entry = with_port[1]
    if entry == "*":
        return True
    try:
        return _unmapped(host) in ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
    except ValueError:  # one side or both are host names
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _checked(kind: str, proxy: str) -> str:
    """Return the URL of a proxy, with a scheme; raise `UsageError` if it is invalid or not supported."""
    variable = next((name for name in os.environ if name.lower() == f"{kind}_proxy"), f"{kind}_proxy".upper())
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        scheme = httpx.URL(proxy).scheme
    except httpx.InvalidURL as error:
        message = f"${variable}: not a proxy URL; correct it, or list the endpoint's host in NO_PROXY"
        raise UsageError(message) from error
    if scheme not in _SCHEMES:
        message = f"${variable}: proxy scheme {scheme} is not supported; use one of {', '.join(sorted(_SCHEMES))}"
        raise UsageError(message)
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        message = (
            f"${variable}: a SOCKS proxy needs the package socksio, which is not installed; install it, or list the "
            "endpoint's host in NO_PROXY"
        )
        raise UsageError(message)
    return proxy
