"""Bytes to tokens to ids: the compiled passes, and the vocabulary that they fill.

Tokens are looked up in an open-addressing hash table that compares the bytes themselves, so that no hash collision can
merge two tokens.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 (Numba infers kernel types; the docstrings state them)

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .cache import kernel

TokenizerName = Literal["rouge", "unicode"]
TOKENIZERS: tuple[str, ...] = get_args(TokenizerName)

_ASCII = 0x80  # the first non-ASCII byte; also the top two bits of every UTF-8 continuation byte
_TOP_BITS = 0xC0


def _lowered(*, keep_non_ascii: bool) -> NDArray[np.uint8]:
    """Return the byte table (uint8[256]): the lower-case form of token bytes, 0 for separators."""
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        character = chr(byte)
        if byte < _ASCII and character.isalnum():
            table[byte] = ord(character.lower())
        elif byte >= _ASCII and keep_non_ascii:
            table[byte] = byte
    return table


LOWERED = {"rouge": _lowered(keep_non_ascii=False), "unicode": _lowered(keep_non_ascii=True)}


@kernel
def text_bounds(data, characters, bounds):  # type: ignore[no-untyped-def]
    """Fill `bounds` (int64[n + 1]) with the byte positions where the texts begin in the UTF-8 buffer.

    `characters` (int64[n]) holds each text's length in code points. Every code point has one byte that is not a
    continuation byte, so no separator between texts is needed. O(bytes).
    """
    position = 0
    for text in range(characters.size):
        bounds[text] = position
        left = characters[text]
        while position < data.size and (left > 0 or data[position] & _TOP_BITS == _ASCII):
            if data[position] & _TOP_BITS != _ASCII:
                left -= 1
            position += 1
    bounds[characters.size] = position


@kernel
def split(data, text_bounds, lowered, starts, ends, hashes, offsets):  # type: ignore[no-untyped-def]
    """Split the UTF-8 buffer `data` (uint8) into tokens; return how many.

    Fills `starts` and `ends` (int64, byte positions), `hashes` (uint64, of the lower-cased bytes) and `offsets`
    (int64[n + 1], tokens before each text). `lowered` (uint8[256]) is 0 for a separator. O(bytes).
    """
    found = 0
    offsets[0] = 0
    for text in range(text_bounds.size - 1):
        stop = text_bounds[text + 1]
        position = text_bounds[text]
        while position < stop:
            byte = lowered[data[position]]
            if byte == 0:
                position += 1
                continue
            starts[found] = position
            digest = np.uint64(0xCBF29CE484222325)
            while byte != 0:
                digest = (digest ^ np.uint64(byte)) * np.uint64(0x9E3779B97F4A7C15)
                digest ^= digest >> np.uint64(29)
                position += 1
                byte = lowered[data[position]] if position < stop else np.uint8(0)
            ends[found], hashes[found] = position, digest
            found += 1
        offsets[text + 1] = found
    return found


@kernel
def intern_tokens(data, lowered, starts, ends, hashes, first, ids, slots, known_hashes, bounds, arena, size):  # type: ignore[no-untyped-def]
    """Fill `ids` (int32) for the tokens from `first` on; return (first token not done, vocabulary size).

    Open addressing with linear probing. Stops early when the table is half full or the arena of token bytes might
    overflow; the caller then makes room.
    """
    mask = np.uint64(slots.size - 1)
    for token in range(first, starts.size):
        digest = hashes[token]
        length = ends[token] - starts[token]
        slot = np.int64((digest ^ (digest >> np.uint64(32))) & mask)
        while True:
            known = slots[slot]
            if known < 0:
                if 2 * (size + 1) > slots.size or size >= known_hashes.size or bounds[size] + length > arena.size:
                    return token, size
                begin = bounds[size]
                for k in range(length):
                    arena[begin + k] = lowered[data[starts[token] + k]]
                bounds[size + 1] = begin + length
                known_hashes[size] = digest
                slots[slot] = size
                ids[token] = size
                size += 1
                break
            if known_hashes[known] == digest and bounds[known + 1] - bounds[known] == length:
                same = True
                for k in range(length):
                    if arena[bounds[known] + k] != lowered[data[starts[token] + k]]:
                        same = False
                        break
                if same:
                    ids[token] = known
                    break
            slot = (slot + 1) & np.int64(mask)
    return starts.size, size


@kernel
def rehash(slots, known_hashes, size):  # type: ignore[no-untyped-def]
    """Insert the first `size` tokens into the empty table `slots` (int32, -1 everywhere)."""
    mask = np.uint64(slots.size - 1)
    for token in range(size):
        digest = known_hashes[token]
        slot = np.int64((digest ^ (digest >> np.uint64(32))) & mask)
        while slots[slot] >= 0:
            slot = (slot + 1) & np.int64(mask)
        slots[slot] = token


class Vocabulary:
    """Tokens and their ids: 0, 1, 2, ... in order of first occurrence. Tokens are added, never removed.

    Args:
        tokenizer: tokenizer of the tokens; ids of different tokenizers must not be mixed.
    """

    def __init__(self, tokenizer: TokenizerName = "rouge") -> None:
        if tokenizer not in TOKENIZERS:
            message = f"tokenizer must be one of {', '.join(TOKENIZERS)}, not {tokenizer!r}"
            raise ValueError(message)
        self.tokenizer: TokenizerName = tokenizer
        self._size = 0
        self._slots = np.full(1 << 12, -1, np.int32)
        self._hashes = np.empty(1 << 11, np.uint64)
        self._bounds = np.zeros((1 << 11) + 1, np.int64)
        self._arena = np.empty(1 << 14, np.uint8)

    def __len__(self) -> int:
        return self._size

    def token_bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return all tokens as (concatenated UTF-8 bytes, read-only; bounds int64[len + 1])."""
        arena = self._arena[: self._bounds[self._size]]
        arena.flags.writeable = False  # like the buffers of texts, so that one compiled version serves both
        return arena, self._bounds[: self._size + 1]

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each token's bytes, uint64[len]: the same in every process."""
        return self._hashes[: self._size]

    def tokens(self, ids: Sequence[int] | NDArray[np.int32]) -> list[str]:
        """Return the tokens of `ids` as strings."""
        arena, bounds = self.token_bytes()
        return [arena[bounds[i] : bounds[i + 1]].tobytes().decode() for i in ids]

    def _grow(self, token_bytes: int) -> None:
        """Make room for at least one more token, of `token_bytes` bytes."""
        if 2 * (self._size + 1) > self._slots.size:
            self._slots = np.full(self._slots.size * 2, -1, np.int32)
            rehash(self._slots, self._hashes, self._size)
        if self._size >= self._hashes.size:
            self._bounds = np.concatenate([self._bounds, np.zeros(self._hashes.size, np.int64)])
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        used = int(self._bounds[self._size])
        if used + token_bytes > self._arena.size:
            arena = np.empty(max(2 * self._arena.size, used + token_bytes), np.uint8)
            arena[:used] = self._arena[:used]
            self._arena = arena

    def intern(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        hashes: NDArray[np.uint64],
    ) -> NDArray[np.int32]:
        """Return the ids (int32[n]) of the tokens `data[starts[i]:ends[i]]`; new tokens are added."""
        ids = np.empty(starts.size, np.int32)
        done = 0
        while True:
            done, self._size = intern_tokens(
                data, LOWERED[self.tokenizer], starts, ends, hashes, done, ids,
                self._slots, self._hashes, self._bounds, self._arena, self._size,
            )  # fmt: skip
            if done == starts.size:
                return ids
            self._grow(int(ends[done] - starts[done]))

    @classmethod
    def from_bytes(cls, tokenizer: TokenizerName, arena: NDArray[np.uint8], bounds: NDArray[np.int64]) -> "Vocabulary":
        """Return a vocabulary of the tokens from `token_bytes`, with the same ids.

        Raises:
            ValueError: if the tokens are not distinct, or `tokenizer` would not give them.
        """
        vocabulary = cls(tokenizer)
        arena = arena.copy()
        arena.flags.writeable = False
        text_bounds, offsets = np.ascontiguousarray(bounds), np.empty_like(bounds)
        count = bounds.size - 1
        starts, ends, hashes = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint64)
        found = split(arena, text_bounds, LOWERED[tokenizer], starts, ends, hashes, offsets)
        ids = vocabulary.intern(arena, starts[:found], ends[:found], hashes[:found])
        if found != count or not np.array_equal(ids, np.arange(count)):
            message = "the saved vocabulary is damaged"
            raise ValueError(message)
        return vocabulary

    def translate(self, other: "Vocabulary", first: int = 0) -> NDArray[np.int32]:
        """Return the ids in this vocabulary (int32) of the tokens of `other` from `first` on; new tokens are added."""
        arena, bounds = other.token_bytes()
        return self.intern(arena, bounds[first:-1], bounds[first + 1 :], other.hashes[first:])
