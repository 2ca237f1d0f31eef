"""Texts to token ids: two tokenizers, one growing vocabulary, no Python step per token.

`rouge` gives exactly the tokens of google's `rouge_score` without a stemmer: `str.lower()`, with every run of
characters outside `[a-z0-9]` as a separator. `unicode` gives the same tokens on ASCII, and words of every script.

A batch is joined into one UTF-8 buffer, and one compiled pass over its bytes splits it into tokens. Each token is
looked up in an open-addressing hash table that compares the bytes themselves, so that no hash collision can merge two
tokens.
"""

import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from .vocabulary import LOWERED, TokenizerName, Vocabulary, split, text_bounds

#: Texts tokenised at once: enough to amortise the cost of a call, few enough that the buffers stay in the cache.
_BLOCK = 8192


class NoTokensWarning(UserWarning):
    """Texts that are not blank have no token under the `rouge` tokenizer, so they cannot be compared."""


# --- unicode: fold what the byte pass cannot handle ----------------------------------------------------------------

# Scripts written without spaces. Han, kana and Hangul give one token per character; Thai, Lao, Myanmar and Khmer one
# per base character with its marks, which is what UAX #29 does without a dictionary.
_UNDIVIDED = re.compile(
    "[\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\uffa0-\uffdc\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\u31f0-\u31ff"
    "\U0001aff0-\U0001b16f\U00020000-\U000323af]"
    "|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f][\u0300-\u036f"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u105e-\u1060"
    "\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d\u17b4-\u17d3\u17dd\ua9e5\uaa7b-\uaa7d]*"
)
_DANGLING_MARKS = re.compile(r"(?:(?<=\s)|^)[^\w\s]+")


_VARIATION_SELECTORS = frozenset([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
_ZERO_WIDTH_SPACE = 0x200B


class _FoldTable(dict[int, str | int | None]):
    """`str.translate` table that classifies each code point once: kept, dropped, or a separator."""

    def __missing__(self, code: int) -> str | int | None:
        category = unicodedata.category(chr(code))
        folded: str | int | None = " "
        if category[0] in "LN" or category in ("Mn", "Mc"):
            folded = code
        if category in {"Cf", "Me"} or code in _VARIATION_SELECTORS:
            folded = None  # joiners, soft hyphens, variation selectors: inside a word, not between words
        if code == _ZERO_WIDTH_SPACE:
            folded = " "  # it marks a word boundary
        self[code] = folded
        return folded


_FOLD = _FoldTable()


# Combining marks are never word characters. A run of other signs may match too; it is not changed.
_MANY_MARKS = re.compile(r"[^\w\s]{32,}")


def nfc(text: str) -> str:
    """Return `text` in Unicode's composed form (NFC), in O(n log n).

    `unicodedata` orders the marks on one letter by insertion, in quadratic time. Long runs of marks are therefore put
    into their canonical order first (a stable sort by combining class, UAX #15).
    """
    return unicodedata.normalize("NFC", _MANY_MARKS.sub(_ordered_marks, text))


def _ordered_marks(match: re.Match[str]) -> str:
    runs = groupby(match[0], key=lambda sign: unicodedata.combining(sign) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if marks else run) for marks, run in runs)


def _fold(text: str) -> str:
    """Return `text` with its words separated by spaces: NFC, lower case, words of every script."""
    text = nfc(nfc(text).lower())
    text = _UNDIVIDED.sub(r" \g<0> ", text.translate(_FOLD))
    return _DANGLING_MARKS.sub(" ", text)


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts: row i is `ids[offsets[i]:offsets[i + 1]]`.

    Attributes:
        ids: int32[total tokens], token ids in `vocabulary`.
        offsets: int64[n + 1], from 0 to the number of tokens.
        vocabulary: vocabulary of the ids.
        silent: number of texts that were not blank but had no token when they were tokenised.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    vocabulary: Vocabulary = field(repr=False)
    silent: int = 0

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens per row, int64[n]."""
        return np.diff(self.offsets)

    def row(self, index: int) -> list[str]:
        """Return the tokens of one row as strings."""
        return self.vocabulary.tokens(self.ids[self.offsets[index] : self.offsets[index + 1]])

    def block(self, start: int, stop: int) -> "Encoded":
        """Return rows `start`..`stop - 1`, without copying the ids."""
        offsets = self.offsets[start : stop + 1]
        return Encoded(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0], self.vocabulary)


def check_texts(texts: object) -> Sequence[str]:
    """Return `texts` as a sequence of strings.

    Raises:
        TypeError: if `texts` is a single string, or not iterable.
    """
    if isinstance(texts, str | bytes):
        message = f"expected a sequence of texts, not one {type(texts).__name__}: wrap it in a list"
        raise TypeError(message)
    rows: Sequence[str] = texts if isinstance(texts, list | tuple) else list(texts)  # type: ignore[call-overload]
    return rows


def _utf8(texts: Sequence[str], first: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], bool]:
    """Return `texts` joined, as (UTF-8 bytes, code points per text, whether all are ASCII).

    Raises:
        TypeError: if an element is not a string. Positions in messages start from `first`.
        ValueError: if a text holds a lone surrogate.
    """
    try:
        joined = "".join(texts)
    except TypeError:
        index = next(i for i, text in enumerate(texts) if not isinstance(text, str))
        message = f"text {first + index} is {type(texts[index]).__name__}, not str"
        raise TypeError(message) from None
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    try:
        data = joined.encode()
    except UnicodeEncodeError as error:
        index = int(np.searchsorted(np.cumsum(characters), error.start, side="right"))
        message = f"text {first + index} holds a lone surrogate (U+{ord(joined[error.start]):04X}): not valid Unicode"
        raise ValueError(message) from None
    return np.frombuffer(data, np.uint8), characters, len(data) == len(joined)


def _to_ascii_where_lower_does(texts: Sequence[str]) -> Sequence[str]:
    """Return `texts` with the only two non-ASCII characters replaced whose `str.lower()` holds an ASCII letter.

    U+0130 becomes `i` and a combining dot, U+212A (the Kelvin sign) becomes `k`; the tests try every code point.
    """
    return [text.replace("\u0130", "i\u0307").replace("\u212a", "k") if not text.isascii() else text for text in texts]


def _prepare(
    texts: Sequence[str], tokenizer: TokenizerName, first: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], bool]:
    """Return the input of the byte pass: (UTF-8 bytes, code points per text, whether the texts are ASCII)."""
    data, characters, ascii_only = _utf8(texts, first)
    if ascii_only:
        return data, characters, True
    if tokenizer == "unicode":
        return *_utf8([text if text.isascii() else _fold(text) for text in texts], first)[:2], False
    if any("\u0130" in text or "\u212a" in text for text in texts):
        return *_utf8(_to_ascii_where_lower_does(texts), first)[:2], False
    return data, characters, False


def encode(
    texts: Sequence[str] | Encoded,
    tokenizer: TokenizerName = "rouge",
    vocabulary: Vocabulary | None = None,
) -> Encoded:
    """Return `texts` tokenised; every function of this package that takes texts takes the result too.

    Args:
        texts: any sequence of strings.
        tokenizer: `rouge` (google's `rouge_score` without stemmer) or `unicode` (words of every script).
        vocabulary: vocabulary to add new tokens to; a new one if None.

    Returns:
        Ids (int32) and offsets (int64) as flat arrays. Cost: one pass over the UTF-8 bytes, and one hash look-up per
        token.

    Raises:
        TypeError: if an element is not a string; the message names its position.
        ValueError: if a text holds a lone surrogate, or the tokenizer is unknown or not that of the vocabulary.
    """
    if isinstance(texts, Encoded):
        return texts
    vocabulary = Vocabulary(tokenizer) if vocabulary is None else vocabulary
    if vocabulary.tokenizer != tokenizer:
        message = f"the vocabulary is of tokenizer {vocabulary.tokenizer!r}, not {tokenizer!r}"
        raise ValueError(message)
    rows = check_texts(texts)
    blocks: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []
    silent = 0
    for first in range(0, max(1, len(rows)), _BLOCK):
        block = rows[first : first + _BLOCK]
        ids, offsets, ascii_only = _encode_block(block, vocabulary, first)
        blocks.append((ids, offsets))
        if not ascii_only and tokenizer == "rouge":
            empty = np.flatnonzero(np.diff(offsets) == 0)
            silent += sum(not block[i].isascii() and not block[i].isspace() for i in empty)
    if silent:
        warnings.warn(
            f"{silent} of {len(rows)} texts have no token [a-z0-9] and score 0 against everything; "
            "use tokenizer='unicode' for other scripts",
            NoTokensWarning,
            stacklevel=2,
        )
    if len(blocks) == 1:
        return Encoded(*blocks[0], vocabulary, silent)
    ends = np.cumsum([ids.size for ids, _ in blocks])
    later = [offsets[1:] + end for (_, offsets), end in zip(blocks[1:], ends, strict=False)]
    offsets = np.concatenate([blocks[0][1], *later])
    return Encoded(np.concatenate([ids for ids, _ in blocks]), offsets, vocabulary, silent)


def _encode_block(
    texts: Sequence[str], vocabulary: Vocabulary, first: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], bool]:
    """Return one block tokenised: (ids, offsets, whether the texts are ASCII)."""
    data, characters, ascii_only = _prepare(texts, vocabulary.tokenizer, first)
    room = (data.size + characters.size) // 2 + 1  # each token is followed by a separator or the end of a text
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    hashes = np.empty(room, np.uint64)
    offsets = np.empty(len(texts) + 1, np.int64)
    bounds = np.empty_like(offsets)
    text_bounds(data, characters, bounds)
    found = split(data, bounds, LOWERED[vocabulary.tokenizer], starts, ends, hashes, offsets)
    ids = vocabulary.intern(data, starts[:found], ends[:found], hashes[:found])
    return ids, offsets, ascii_only
