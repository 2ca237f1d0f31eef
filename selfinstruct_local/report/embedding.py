"""Parts of a self-contained HTML page: scripts, a content security policy with their hashes, and embedded JSON.

The policy allows only the scripts with the listed hashes, and forbids all network requests.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import orjson


def script_text(text: str) -> str:
    """Return a script as the browser hashes it: with line feeds only."""
    return "\n" + text.replace("\r\n", "\n").replace("\r", "\n")


def content_policy(scripts: Iterable[str]) -> str:
    """Return the Content-Security-Policy of a page with these scripts, each as `script_text` returns it."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def script_json(value: Any) -> str:
    """Return JSON for a script element: nothing in it ends the element or begins a comment."""
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
