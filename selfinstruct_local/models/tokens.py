"""Vocabulary and special tokens of a model folder, read from its files without transformers."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKEN_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return the ids of a folder's tokens, or {} if it has no vocabulary in a known format."""
    ids: dict[str, int] = {}
    tokenizer = path / "tokenizer.json"
    if tokenizer.is_file():
        with suppress(orjson.JSONDecodeError):
            ids |= _ids_of_tokenizer(orjson.loads(tokenizer.read_bytes()))
    elif (path / "tokenizer.model").is_file():
        ids |= {piece: number for number, piece in enumerate(read_pieces((path / "tokenizer.model").read_bytes()))}
    elif (path / "vocab.json").is_file():
        with suppress(orjson.JSONDecodeError):
            ids |= _only_ids(orjson.loads((path / "vocab.json").read_bytes()))
    if (path / "added_tokens.json").is_file():
        with suppress(orjson.JSONDecodeError):
            ids |= _only_ids(orjson.loads((path / "added_tokens.json").read_bytes()))
    if (path / TOKENIZER_CONFIG).is_file():
        with suppress(orjson.JSONDecodeError):
            ids |= _ids_of_decoder(orjson.loads((path / TOKENIZER_CONFIG).read_bytes()))
    return ids


def _ids_of_decoder(value: Any) -> dict[str, int]:
    decoder = value.get("added_tokens_decoder") if isinstance(value, dict) else None
    pairs = decoder.items() if isinstance(decoder, dict) else ()
    return {text_of(token): int(number) for number, token in pairs if str(number).isdecimal()}


def _ids_of_tokenizer(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    vocabulary = value.get("model", {}).get("vocab", {}) if isinstance(value.get("model"), dict) else {}
    if isinstance(vocabulary, list):  # Unigram model: pairs of piece and score
        ids = {each[0]: number for number, each in enumerate(vocabulary) if isinstance(each, list) and each}
    else:
        ids = _only_ids(vocabulary)
    added = value.get("added_tokens")
    for each in added if isinstance(added, list) else []:
        if isinstance(each, dict) and isinstance(each.get("id"), int):
            ids[str(each.get("content"))] = each["id"]
    return ids


def read_special_tokens(path: Path) -> set[str]:
    """Return the special tokens of a folder, which no text is tokenised as: marked special, or named in its config."""
    special: set[str] = set()
    for name in ("tokenizer.json", TOKENIZER_CONFIG):
        value: Any = None
        with suppress(FileNotFoundError, orjson.JSONDecodeError):
            value = orjson.loads((path / name).read_bytes())
        if not isinstance(value, dict):
            continue
        decoder = value.get("added_tokens_decoder")
        tokens = [*(decoder.values() if isinstance(decoder, dict) else ()), *(value.get("added_tokens") or ())]
        special |= {text_of(each) for each in tokens if isinstance(each, dict) and each.get("special")}
        special |= {text_of(value[key]) for key in TOKEN_KEYS if value.get(key)}
    return special


def _only_ids(value: Any) -> dict[str, int]:
    return {key: each for key, each in value.items() if isinstance(each, int)} if isinstance(value, dict) else {}


def read_pieces(model: bytes) -> Iterator[str]:
    """Yield the pieces of a SentencePiece model in the order of their ids.

    The model is a protocol buffer: field 1 of the model is a piece, and field 1 of a piece is its text
    (github.com/google/sentencepiece, sentencepiece_model.proto).
    """
    for field, value in _protobuf_fields(model):
        if field == 1 and isinstance(value, bytes):
            text = next((each for number, each in _protobuf_fields(value) if number == 1), b"")
            yield text.decode("utf-8", "replace") if isinstance(text, bytes) else ""


def _protobuf_fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of the fields of a message, up to the first truncated or unknown one."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:  # noqa: PLR2004 - a length, then that many bytes
            length, at = _varint(data, at)
        elif kind in {1, 5}:  # 8 or 4 bytes
            length = 8 if kind == 1 else 4
        else:
            return
        if at + length > len(data):
            return
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:  # noqa: PLR2004 - the highest bit is set if more bytes follow
            break
    return value, at


def text_of(token: object) -> str:
    """Return the text of a token from a config, given as a string or as an added-token object."""
    return str(token.get("content") if isinstance(token, dict) else token)
