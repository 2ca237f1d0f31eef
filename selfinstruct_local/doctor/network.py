"""What would reach for the network, the port of `selfinstruct serve`, and the servers that were named.

Nothing but the named endpoints is asked. Leans on `offline.py`, `engine/serve.py` and `engine/model_lists.py`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson

from selfinstruct_local.doctor.finding import Finding
from selfinstruct_local.errors import UsageError
from selfinstruct_local.offline import SWITCHES

CHILD_SECONDS = 60
# What a process that is started from here sees, and what the library of the Hub makes of it.
_CHILD = """
import importlib.util, json, os
hub = None
if importlib.util.find_spec("huggingface_hub"):
    from huggingface_hub import constants
    hub = constants.HF_HUB_OFFLINE and constants.HF_HUB_DISABLE_TELEMETRY
print(json.dumps([dict(os.environ), hub]))
"""


def check_offline() -> Finding:
    """Whether the switches of `offline.py` are in force in a process that this one starts."""
    mend = "start through the command 'selfinstruct'; look for what changes the environment (sitecustomize, .pth files)"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD], capture_output=True, text=True, timeout=CHILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("offline", "fail", f"a child process gave no answer in {CHILD_SECONDS} s", mend)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return Finding("offline", "fail", f"a child process failed ({said})", mend)
    environment, hub = orjson.loads(done.stdout.splitlines()[-1])
    wrong = sorted(name for name, value in SWITCHES.items() if environment.get(name) != value)
    if wrong:
        return Finding("offline", "fail", f"not in force in a child process: {', '.join(wrong)}", mend)
    if hub is False:
        return Finding("offline", "fail", "huggingface_hub would go online in spite of its switches", mend)
    return Finding("offline", "ok", f"{len(SWITCHES)} switches are in force in a child process")


def check_proxies(endpoints: Sequence[str]) -> Finding:
    """Whether proxy variables stand between this machine and a named server; they never do for this machine."""
    from selfinstruct_local.engines.proxies import proxy_for

    # Their values may hold passwords.
    names = sorted(name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "all_proxy"})
    if not names:
        return Finding("proxies", "ok", "no proxy variables are set")
    try:
        through = [each for each in endpoints if proxy_for(each)]
    except UsageError as error:
        return Finding.of_error("proxies", error)
    if through:
        detail = f"{', '.join(through)} would be asked through a proxy ({', '.join(names)})"
        host = urlsplit(through[0]).hostname
        return Finding("proxies", "warn", detail, f"set NO_PROXY={host}, or unset them, if that is not meant")
    return Finding("proxies", "ok", f"{', '.join(names)} set, and used for nothing")


def check_port(port: int | None) -> Finding:
    """Whether `selfinstruct serve` could listen.

    Args:
        port: on the loopback interface; None takes the default of `serve`, which nobody may want to start.
    """
    from selfinstruct_local.engines.serve import ServeSettings, check_ready

    settings = ServeSettings() if port is None else ServeSettings(port=port)
    try:
        check_ready(settings)
    except UsageError as error:
        return Finding.of_error("port", error, "warn" if port is None else "fail")
    return Finding("port", "ok", f"{settings.port} on {settings.host} is free for 'selfinstruct serve'")


def check_endpoint(url: str) -> Finding:
    """Whether a server answers, and what it serves."""
    from selfinstruct_local.engines.http_clients import UnreachableError
    from selfinstruct_local.engines.model_lists import LOOK_SECONDS, served_models
    from selfinstruct_local.engines.serve import API_KEY_VARIABLE

    try:
        models = served_models(url, os.environ.get(API_KEY_VARIABLE), LOOK_SECONDS)
    except UnreachableError as error:
        return Finding("endpoint", "fail", f"{url}: {error}", "start the server there, or mend the URL or the firewall")
    except UsageError as error:
        return Finding.of_error("endpoint", error)
    if not models:
        return Finding("endpoint", "fail", f"{url}: serves no model", "start it with one")
    named = ", ".join(f"{name} ({context} tokens)" if context else name for name, context in models.items())
    return Finding("endpoint", "ok", f"{url}: serves {named}")
