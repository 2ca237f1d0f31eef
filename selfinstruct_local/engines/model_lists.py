"""What servers serve: their lists of models, and the name under which they serve ours."""

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

# A list of models comes at once, whatever the server is busy with; a host that does not answer at all is soon known.
LOOK_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 1.0
# However short an outage may be, a server gets that long for its list.
SHORTEST_LOOK_SECONDS = 2.0

REFUSED_KEY = frozenset({401, 403})
NO_SUCH_PAGE = frozenset({404, 405})
_HIGHEST_PORT = 65535
_MAX_NAMES = 10
_MAX_NAME = 300

ResultT = TypeVar("ResultT")


def check_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """The base URLs, each once, without a slash at the end.

    Raises:
        UsageError: one is no http(s) URL, or carries a password.
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
            message = f"--endpoint ...@{parsed.host}: no passwords in URLs; a key goes in ${API_KEY_VARIABLE}"
            raise UsageError(message)
        if parsed.query or parsed.fragment:
            message = f"--endpoint {url.partition('?')[0].partition('#')[0]}: a base URL ends with its path"
            raise UsageError(message)
        if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > _HIGHEST_PORT:
            message = f"--endpoint {url}: not a URL like http://127.0.0.1:8000/v1"
            raise UsageError(message)
        checked.append(url.rstrip("/"))
    return tuple(dict.fromkeys(checked))


def served_models(url: str, api_key: str | None, timeout: float) -> dict[str, int | None]:
    """The models a server serves: their names, each with its context in tokens where the server tells it (vLLM does).

    Args:
        url: its base URL.
        api_key: sent as a bearer token.
        timeout: seconds to wait.

    Raises:
        UnreachableError: it gave no usable answer.
        UsageError: it answers, and asking again would not help: the key or the URL is wrong.
    """
    return _wait_for(_served_models(url.rstrip("/"), api_key, timeout))


async def ask_for_models(lanes: HttpClients, url: str, seconds: float) -> Answer:
    """Return the answer of a server that is asked for its list of models.

    Raises:
        UnreachableError: there is none, or it is not complete in that many seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            return await lanes.send("GET", f"{url}/models")
    except TimeoutError:
        message = f"no list of models in {seconds:.0f} s"
        raise UnreachableError(message) from None


def look_seconds(outage_seconds: float) -> float:
    """Return the time that a server gets for its list of models."""
    return min(LOOK_SECONDS, max(SHORTEST_LOOK_SECONDS, outage_seconds))


def find_served_model(
    urls: Sequence[str],
    wanted: str | None,
    *,
    api_key: str | None,
    outage_seconds: float,
    folder: Path | None = None,
) -> str:
    """The name under which the servers serve the model; waits until at least one of them answers.

    Args:
        urls: their base URLs.
        wanted: a served name; None takes what there is.
        api_key: sent as a bearer token.
        outage_seconds: how long to wait for a first answer.
        folder: of the model; served names that are its path or end in its name are taken for it.

    Raises:
        UsageError: the servers that answer serve no such model, or not all of them do.
        EngineDeadError: none answered in time.
    """
    served = _first_answers(check_urls(urls), api_key, outage_seconds)
    first, models = next(iter(served.items()))
    name = _pick(models, wanted, folder)
    if name is None:
        missed = wanted or (folder.name if folder else "")
        wish = f"not {missed}; name one of them with --model" if missed else "name one with --model"
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
    """The error for a server that wants another key, or one at all."""
    return EngineDeadError(_refused_key(url, answer))


def _refused_key(url: str, answer: Answer) -> str:
    return f"{url}: refuses the key ({answer.status_line}); set ${API_KEY_VARIABLE} to the one it was started with"


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
    """Return the result of a coroutine, run in a thread of its own: the caller's may have a loop that runs (notebooks).

    Only asyncio ends an HTTP request as a whole in time; httpx's own time-outs begin anew with every byte.
    """
    result: Future[ResultT] = Future()

    def run() -> None:
        loop = asyncio.new_event_loop()
        try:
            result.set_result(loop.run_until_complete(work))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
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
            message = f"no server has answered for {outage_seconds:.0f} s: {states}; is one started, and the URL right?"
            raise EngineDeadError(message)
        if not said:
            LOG.warning("waiting up to %.0f s for a server to answer: %s", outage_seconds, states)
            said = True
        time.sleep(min(LOOK_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))


def _pick(models: dict[str, int | None], wanted: str | None, folder: Path | None) -> str | None:
    if wanted in models:
        return wanted
    if folder is not None:
        paths = {str(folder), str(folder.resolve())}
        return next((name for name in models if name in paths or Path(name).name == folder.name), None)
    return next(iter(models)) if wanted is None and len(models) == 1 else None
