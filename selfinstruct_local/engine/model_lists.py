"""What servers serve: their lists of models, and the name under which they serve ours.

Leans on httpx alone.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import orjson

from selfinstruct_local.engine.lanes import is_loopback
from selfinstruct_local.engine.serve import API_KEY_VARIABLE
from selfinstruct_local.errors import EngineDeadError, WrongUseError

LOG = logging.getLogger("selfinstruct_local.engine")

# A list of models comes at once, whatever the server is busy with; a host that does not answer at all is soon known.
LOOK_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 1.0

HTTP_OK = 200
REFUSED_KEY = frozenset({401, 403})
NO_SUCH_PAGE = frozenset({404, 405})


class UnreachableError(Exception):
    """A server gave no usable answer; the text says why."""


def check_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """The base URLs, each once, without a slash at the end.

    Raises:
        WrongUseError: one is no http(s) URL, or carries a password.
    """
    checked = []
    for url in urls:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            message = f"--endpoint {url}: {str(error).lower()}"
            raise WrongUseError(message) from error
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            message = f"--endpoint {url}: not a URL like http://127.0.0.1:8000/v1"
            raise WrongUseError(message)
        if parsed.userinfo:
            message = f"--endpoint ...@{parsed.host}: no passwords in URLs; a key goes in ${API_KEY_VARIABLE}"
            raise WrongUseError(message)
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
        WrongUseError: it answers, and asking again would not help: the key or the URL is wrong.
    """
    try:
        with httpx.Client(trust_env=not is_loopback(url), headers=authorization(api_key), timeout=timeout) as client:
            response = client.get(f"{url.rstrip('/')}/models")
    except httpx.RequestError as error:
        raise UnreachableError(describe(error)) from error
    status = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in REFUSED_KEY:
        message = (
            f"--endpoint {url}: refuses the key ({status}); set ${API_KEY_VARIABLE} to the one it was started with"
        )
        raise WrongUseError(message)
    if response.status_code in NO_SUCH_PAGE:
        message = f"--endpoint {url}: no list of models at {url}/models ({status}); most base URLs end in /v1"
        raise WrongUseError(message)
    return read_models(response)


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
        WrongUseError: the servers that answer serve no such model, or not all of them do.
        EngineDeadError: none answered in time.
    """
    served = _first_answers(check_urls(urls), api_key, outage_seconds)
    first, models = next(iter(served.items()))
    name = _pick(models, wanted, folder)
    if name is None:
        missed = wanted or (folder.name if folder else "")
        wish = f"not {missed}; name one of them with --model" if missed else "name one with --model"
        message = f"--endpoint {first}: serves {', '.join(models) or 'nothing'}{',' if missed else ';'} {wish}"
        raise WrongUseError(message)
    for url, others in served.items():
        if name not in others:
            message = f"--endpoint {url}: serves {', '.join(others) or 'nothing'}, not {name} as {first} does"
            raise WrongUseError(message)
    return name


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries the key.

    Raises:
        WrongUseError: no header can hold it; told here, because the library's own error would show it.
    """
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable():
        message = f"${API_KEY_VARIABLE}: holds characters that a key cannot have, perhaps the end of a line"
        raise WrongUseError(message)
    return {"Authorization": f"Bearer {api_key}"}


def describe(error: BaseException) -> str:
    """What went wrong on the way to a server, in the words of the system where it has any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def read_models(response: httpx.Response) -> dict[str, int | None]:
    """The names in a list of models, each with the context the server tells of, if any.

    Raises:
        UnreachableError: this is no list of models.
    """
    if response.status_code != HTTP_OK:
        message = f"answers {response.status_code} {response.reason_phrase} when asked for its models"
        raise UnreachableError(message)
    try:
        return {str(each["id"]): each.get("max_model_len") for each in orjson.loads(response.content)["data"]}
    except (ValueError, TypeError, KeyError, AttributeError):
        message = "answers no list of models when asked for it"
        raise UnreachableError(message) from None


def wrong_key(url: str, response: httpx.Response) -> EngineDeadError:
    """The error for a server that wants another key, or one at all."""
    return EngineDeadError(
        f"{url}: refuses the key ({response.status_code} {response.reason_phrase}); set ${API_KEY_VARIABLE} to the one "
        "it was started with"
    )


def _first_answers(urls: Sequence[str], api_key: str | None, outage_seconds: float) -> dict[str, dict[str, int | None]]:
    deadline = time.monotonic() + outage_seconds
    said = False
    while True:
        served: dict[str, dict[str, int | None]] = {}
        errors: dict[str, str] = {}
        for url in urls:
            try:
                served[url] = served_models(url, api_key, LOOK_SECONDS)
            except UnreachableError as error:
                errors[url] = str(error)
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
