"""The key that is sent to servers: the header that carries it, and texts that must not show it."""

import re

from selfinstruct_local.engines.serve import API_KEY_VARIABLE
from selfinstruct_local.errors import UsageError

# So many letters and digits in a row, as they stand in the key, count as a part of it.
_PART = 6
_LONG = 8
_WITHHELD = "(not shown: it repeats the key)"


def authorization(api_key: str | None) -> dict[str, str]:
    """Return the header that carries the key.

    Raises:
        UsageError: no header can hold it; told here, because the library's own error would show it.
    """
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        message = f"${API_KEY_VARIABLE}: holds characters that a key cannot have, perhaps a space or the end of a line"
        raise UsageError(message)
    return {"Authorization": f"Bearer {api_key}"}


def without_key(text: str, api_key: str | None) -> str:
    """Return a text that came from outside, or a note in its place if it repeats the key or a part of it.

    Upper and lower case count as the same, and what is no letter or digit as nothing. Of a key of a few letters, which
    may be a word, only the key itself counts.
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
