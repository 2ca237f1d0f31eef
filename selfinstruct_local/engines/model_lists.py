"""Read the lists of models of servers, and find the name under which they serve a model."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx

from selfinstruct_local.engines.http_clients import Answer, HttpClients, UnreachableError
from selfinstruct_local.engines.serve import API_KEY_VARIABLE
from selfinstruct_local.engines.server_answers import AnswerReader
from selfinstruct_local.errors import EngineDeadError, UsageError

LOG = logging.getLogger("selfinstruct_local.engines")

# A busy server still returns its list of models at once; an unreachable host is detected quickly.
LOOK_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 1.0
# Minimum time for a server to return its list, even if the allowed outage is shorter.
SHORTEST_LOOK_SECONDS = 2.0

REFUSED_KEY = frozenset({401, 403})
NO_SUCH_PAGE = frozenset({404, 405})
_HIGHEST_PORT = 65535
_MAX_NAMES = 10
_MAX_NAME = 300

ResultT = TypeVar("ResultT")


def check_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the base URLs without duplicates and trailing slashes.

    Raises:
        UsageError: a URL is not an http(s) URL, or contains a password.
    """
    checked = []
    for url in urls:
        public = re.sub(r"//[^/]*@", "//...@", url)
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            message = f"--endpoint {public}: {'not a URL' if public != url else str(error).lower()}"
            raise UsageError(message) from error
        if parsed.userinfo:
            message = f"--endpoint ...@{parsed.host}: remove the password; put a key in ${API_KEY_VARIABLE}"
            raise UsageError(message)
        if parsed.query or parsed.fragment:
            message = f"--endpoint {url.partition('?')[0].partition('#')[0]}: a base URL has no query or fragment"
            raise UsageError(message)
        if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > _HIGHEST_PORT:
            message = f"--endpoint {url}: not a URL like http://127.0.0.1:8000/v1"
            raise UsageError(message)
        checked.append(url.rstrip("/"))
    return tuple(dict.fromkeys(checked))


def served_models(url: str, api_key: str | None, timeout: float) -> dict[str, int | None]:
    """Return the names of a server's models, each with its context length in tokens, which vLLM reports, or None.

    Args:
        url: base URL of the server.
        api_key: key sent as a bearer token.
        timeout: seconds to wait.

    Raises:
        UnreachableError: there is no valid response.
        UsageError: the key or the URL is wrong, so another try would not help.
    """
    return _wait_for(_served_models(url.rstrip("/"), api_key, timeout))


async def ask_for_models(lanes: HttpClients, url: str, seconds: float) -> Answer:
    """Return a server's response to the request for its list of models.

    Raises:
        UnreachableError: there is no response, or it is not complete within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            return await lanes.send("GET", f"{url}/models")
    except TimeoutError:
        message = f"no list of models within {seconds:.0f} s"
        raise UnreachableError(message) from None


def look_seconds(outage_seconds: float) -> float:
    """Return the timeout for a server's list of models, in seconds."""
    return min(LOOK_SECONDS, max(SHORTEST_LOOK_SECONDS, outage_seconds))


def find_served_model(
    urls: Sequence[str],
    wanted: str | None,
    *,
    api_key: str | None,
    outage_seconds: float,
    folder: Path | None = None,
) -> str:
    """Return the name under which the servers serve the model; wait until at least one server responds.

    Args:
        urls: base URLs of the servers.
        wanted: a served name; None selects the only one.
        api_key: key sent as a bearer token.
        outage_seconds: seconds to wait for a first response.
        folder: model folder; a served name that is its path or ends in its name matches it.

    Raises:
        UsageError: the responding servers do not serve the model, or not all of them do.
        EngineDeadError: no server responded in time.
    """
    served = _first_answers(check_urls(urls), api_key, outage_seconds)
    first, models = next(iter(served.items()))
    name = _pick(models, wanted, folder)
    if name is None:
        missed = wanted or (folder.name if folder else "")
        wish = f"not {missed}; give one of them with --model" if missed else "give one with --model"
        message = f"--endpoint {first}: serves {listed(models)}{',' if missed else ';'} {wish}"
        raise UsageError(message)
    for url, others in served.items():
        if name not in others:
            message = f"--endpoint {url}: serves {listed(others)}, not {name} as {first} does"
            raise UsageError(message)
    return name


def listed(models: Mapping[str, int | None]) -> str:
    """Return the first names of a list of models, for a message."""
    names = [name[:_MAX_NAME] for name in list(models)[:_MAX_NAMES]]
    if len(models) > len(names):
        names.append(f"{len(models) - len(names)} others")
    return ", ".join(names) or "nothing"


def wrong_key(url: str, answer: Answer) -> EngineDeadError:
    """Return the error for a server that rejects the key, or the lack of one."""
    return EngineDeadError(_refused_key(url, answer))


def _refused_key(url: str, answer: Answer) -> str:
    return f"{url}: rejects the key ({answer.status_line}); set ${API_KEY_VARIABLE} to the server's key"


async def _served_models(url: str, api_key: str | None, seconds: float) -> dict[str, int | None]:
    lanes = HttpClients(url, api_key)
    try:
        answer = await ask_for_models(lanes, url, seconds)
    finally:
        await lanes.aclose()
    if answer.status in REFUSED_KEY:
        message = f"--endpoint {_refused_key(url, answer)}"
        raise UsageError(message)
    if answer.status in NO_SUCH_PAGE:
        message = (
            f"--endpoint {url}: no list of models at {url}/models ({answer.status_line}); most base URLs end in /v1"
        )
        raise UsageError(message)
    return AnswerReader(api_key).models(answer)


async def _look_at_all(
    urls: Sequence[str], api_key: str | None, seconds: float
) -> list[dict[str, int | None] | BaseException]:
    return await asyncio.gather(*(_served_models(url, api_key, seconds) for url in urls), return_exceptions=True)


def _wait_for(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine in a separate thread and return its result; the caller's may have a running loop (notebooks).

    Only asyncio limits the total time of an HTTP request; httpx's own timeouts restart with every byte.
    """
    result: Future[ResultT] = Future()

    def run() -> None:
        loop = asyncio.new_event_loop()
        try:
            result.set_result(loop.run_until_complete(work))
        except BaseException as error:  # noqa: BLE001 - passed to the waiting thread
            result.set_exception(error)
        finally:
            loop.close()

    threading.Thread(target=run, name="models", daemon=True).start()
    return result.result()


def _first_answers(urls: Sequence[str], api_key: str | None, outage_seconds: float) -> dict[str, dict[str, int | None]]:
    deadline = time.monotonic() + outage_seconds
    said = False
    while True:
        served: dict[str, dict[str, int | None]] = {}
        errors: dict[str, str] = {}
        found = _wait_for(_look_at_all(urls, api_key, look_seconds(deadline - time.monotonic())))
        for url, models in zip(urls, found, strict=True):
            if isinstance(models, UnreachableError):
                errors[url] = str(models)
            elif isinstance(models, BaseException):
                raise models
            else:
                served[url] = models
        if served:
            return served
        states = ", ".join(f"{url} ({error})" for url, error in errors.items())
        if time.monotonic() >= deadline:
            message = f"no server has responded for {outage_seconds:.0f} s: {states}; start one, or check the URL"
            raise EngineDeadError(message)
        if not said:
            LOG.warning("waiting up to %.0f s for a server to respond: %s", outage_seconds, states)
            said = True
        time.sleep(min(LOOK_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))


def _pick(models: dict[str, int | None], wanted: str | None, folder: Path | None) -> str | None:
    if wanted in models:
        return wanted
    if folder is not None:
        paths = {str(folder), str(folder.resolve())}
        return next((name for name in models if name in paths or Path(name).name == folder.name), None)
    return next(iter(models)) if wanted is None and len(models) == 1 else None
