"""Checks of offline switches, proxies, the port of `selfinstruct serve`, and the named endpoints.

Only the named endpoints are contacted.
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
# Prints the environment of a child process, and whether huggingface_hub is offline there.
_CHILD = """
import importlib.util, json, os
hub = None
if importlib.util.find_spec("huggingface_hub"):
    from huggingface_hub import constants
    hub = constants.HF_HUB_OFFLINE and constants.HF_HUB_DISABLE_TELEMETRY
print(json.dumps([dict(os.environ), hub]))
"""


def check_offline() -> Finding:
    """Check that the switches of `offline.py` are set in a child process."""
    mend = (
        "start with the command 'selfinstruct'; look for code that changes the environment (sitecustomize, .pth files)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD], capture_output=True, text=True, timeout=CHILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("offline", "fail", f"a child process did not respond within {CHILD_SECONDS} s", mend)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return Finding("offline", "fail", f"a child process failed ({said})", mend)
    environment, hub = orjson.loads(done.stdout.splitlines()[-1])
    wrong = sorted(name for name, value in SWITCHES.items() if environment.get(name) != value)
    if wrong:
        return Finding("offline", "fail", f"not set in a child process: {', '.join(wrong)}", mend)
    if hub is False:
        return Finding("offline", "fail", "huggingface_hub would use the network despite its switches", mend)
    return Finding("offline", "ok", f"{len(SWITCHES)} switches are set in a child process")


def check_proxies(endpoints: Sequence[str]) -> Finding:
    """Check whether proxy variables apply to a named server; they never apply to this machine."""
    from selfinstruct_local.engines.proxies import proxy_for

    # Only names are shown, since the values may contain passwords.
    names = sorted(name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "all_proxy"})
    if not names:
        return Finding("proxies", "ok", "no proxy variables are set")
    try:
        through = [each for each in endpoints if proxy_for(each)]
    except UsageError as error:
        return Finding.of_error("proxies", error)
    if through:
        detail = f"requests to {', '.join(through)} would go through a proxy ({', '.join(names)})"
        host = urlsplit(through[0]).hostname
        return Finding(
            "proxies", "warn", detail, f"if this is not intended, set NO_PROXY={host} or unset the variables"
        )
    return Finding("proxies", "ok", f"{', '.join(names)} set, but not used")


def check_port(port: int | None) -> Finding:
    """Check that `selfinstruct serve` can listen on a port.

    Args:
        port: port on the loopback interface; None checks the default port of `serve`, and only warns.
    """
    from selfinstruct_local.engines.serve import ServeSettings, check_ready

    settings = ServeSettings() if port is None else ServeSettings(port=port)
    try:
        check_ready(settings)
    except UsageError as error:
        return Finding.of_error("port", error, "warn" if port is None else "fail")
    return Finding("port", "ok", f"{settings.port} on {settings.host} is free for 'selfinstruct serve'")


def check_endpoint(url: str) -> Finding:
    """Check that a server responds, and list the models it serves."""
    from selfinstruct_local.engines.http_clients import UnreachableError
    from selfinstruct_local.engines.model_lists import LOOK_SECONDS, served_models
    from selfinstruct_local.engines.serve import API_KEY_VARIABLE

    try:
        models = served_models(url, os.environ.get(API_KEY_VARIABLE), LOOK_SECONDS)
    except UnreachableError as error:
        return Finding("endpoint", "fail", f"{url}: {error}", "start the server, or correct the URL or the firewall")
    except UsageError as error:
        return Finding.of_error("endpoint", error)
    if not models:
        return Finding("endpoint", "fail", f"{url}: serves no model", "start it with a model")
    named = ", ".join(f"{name} ({context} tokens)" if context else name for name, context in models.items())
    return Finding("endpoint", "ok", f"{url}: serves {named}")
