"""The API key for servers: its HTTP header, and its redaction in texts from outside."""

import re

from selfinstruct_local.engines.serve import API_KEY_VARIABLE
from selfinstruct_local.errors import UsageError

# A run of this many letters and digits of the key counts as part of the key.
_PART = 6
_LONG = 8
_WITHHELD = "(not shown: contains the key)"


def authorization(api_key: str | None) -> dict[str, str]:
    """Return the header that carries the key.

    Raises:
        UsageError: the key is not valid in a header; raised here because the library's own error would show the key.
    """
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        message = f"${API_KEY_VARIABLE}: remove characters that a key cannot have, such as a space or a line break"
        raise UsageError(message)
    return {"Authorization": f"Bearer {api_key}"}


def without_key(text: str, api_key: str | None) -> str:
    """Return a text from outside, or a placeholder if the text contains the key or a part of it.

    Case and all characters except letters and digits are ignored. A key of a few letters, which may be a word, is
    matched only as a whole word.
    """
    return _WITHHELD if api_key and _repeats(text, api_key) else text


def _repeats(text: str, key: str) -> bool:
    letters = _letters(key)
    if len(letters) < _LONG:
        return re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text) is not None
    plain = _letters(text)
    return any(letters[at : at + _PART] in plain for at in range(len(letters) - _PART + 1))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
