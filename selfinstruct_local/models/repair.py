"""Fixes for known faults of old model folders; the folder itself is not changed.

The first conversions of LLaMA for transformers name classes that no release has, leave special tokens empty and give
them wrong ids. transformers loads such a folder and then recurses infinitely, trains a wrong end token, or cannot save
the trained model. If the correct value is certain, a view of the folder is created: a folder of symbolic links in which
corrected JSON files replace the wrong ones. All code that loads the model loads the view.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.tokens import TOKEN_KEYS, TOKENIZER_CONFIG, read_vocabulary, text_of

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
REPAIRED_FILES = (CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS)
# Class names in the first conversions, and in every release of transformers since 4.28.
_ARCHITECTURES = {"LLaMAForCausalLM": "LlamaForCausalLM"}
_TOKENIZER_CLASSES = {"LLaMATokenizer": "LlamaTokenizer", "LLaMATokenizerFast": "LlamaTokenizerFast"}
# Special tokens of the SentencePiece model of LLaMA (Touvron et al. 2023) and of all models derived from it.
_LLAMA_TOKENS = {"unk_token": ("<unk>", 0), "bos_token": ("<s>", 1), "eos_token": ("</s>", 2)}
_SENTENCEPIECE_MODELS = frozenset({"llama", "mistral", "mixtral"})

Files = dict[str, dict[str, Any]]


def find_repairs(path: Path, files: Mapping[str, dict[str, Any]]) -> tuple[Files, list[str]]:
    """Return the corrected files by name, and one line per correction; both are empty for a valid folder.

    Args:
        path: the model folder.
        files: JSON objects by file name, for the `REPAIRED_FILES` that exist.
    """
    fixed: Files = {name: dict(files.get(name, {})) for name in REPAIRED_FILES}
    _fix_classes(path, fixed)
    tokens = _Tokens(path)
    _fix_numbers(fixed, tokens)
    _fix_tokens(path, fixed, tokens)
    changed = {name: value for name, value in fixed.items() if value != files.get(name, {})}
    return changed, [line for name in changed for line in _describe(name, files.get(name, {}), changed[name])]


def make_view(path: Path, changed: Files, cache: Path) -> Path:
    """Return a folder of symbolic links to the files of `path`, with the `changed` files in place of the originals.

    It is created once in `cache`, and named by a hash of its content.

    Raises:
        UsageError: the folder cannot be created in `cache`.
    """
    names = sorted(entry.name for entry in path.iterdir())
    content = orjson.dumps([str(path), names, changed], option=orjson.OPT_SORT_KEYS)
    view = cache / f"{path.name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if view.is_dir():
        return view
    try:
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{view.name}.", dir=cache))
        try:
            for name in set(names) - set(changed):
                (made / name).symlink_to(path / name)
            for name, value in changed.items():
                (made / name).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
            with suppress(FileExistsError):  # another process created it first
                _rename(made, view)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        message = (
            f"--model {path}: {', '.join(changed)} must be corrected, but {cache} is not writable "
            f"({(error.strerror or str(error)).lower()}); set SELFINSTRUCT_CACHE to a writable folder"
        )
        raise UsageError(message) from error
    return view


def _rename(made: Path, view: Path) -> None:
    try:
        made.rename(view)
    except OSError as error:
        if view.is_dir():
            raise FileExistsError from error
        raise


class _Tokens:
    """The vocabulary of a folder, with ids by token and tokens by id; read on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, int] | None = None

    def id_of(self, token: str) -> int | None:
        """Return the id of `token`, or None if the vocabulary lacks it."""
        return self._read().get(token)

    def token_of(self, token_id: object) -> str | None:
        """Return the token with id `token_id`, or None if there is none."""
        if not isinstance(token_id, int):
            return None
        return next((token for token, number in self._read().items() if number == token_id), None)

    def id_or_next(self, token: str) -> int | None:
        """Return the id of `token`, or the id that transformers assigns when it adds the token."""
        ids = self._read()
        return ids.get(token, max(ids.values()) + 1) if ids else None

    def are_llamas(self) -> bool:
        """Return whether the special tokens are those of LLaMA, with the same ids."""
        return all(self.id_of(token) == number for token, number in _LLAMA_TOKENS.values())

    def _read(self) -> dict[str, int]:
        if self._ids is None:
            self._ids = read_vocabulary(self._path)
        return self._ids


def _fix_classes(path: Path, fixed: Files) -> None:
    config, tokenizer = fixed[CONFIG], fixed[TOKENIZER_CONFIG]
    if isinstance(architectures := config.get("architectures"), list):
        config["architectures"] = [_ARCHITECTURES.get(str(each), each) for each in architectures]
    kind = str(tokenizer.get("tokenizer_class") or "")
    if kind in _TOKENIZER_CLASSES:
        tokenizer["tokenizer_class"] = kind = _TOKENIZER_CLASSES[kind]
    if (path / "tokenizer.json").is_file() or not (path / "tokenizer.model").is_file():
        return
    # If a folder has only a SentencePiece model, transformers 5 makes LLaMA's tokenizer only if its class is named, and
    # prepends the begin token only with add_bos_token; both were defaults in earlier releases.
    if not kind and str(config.get("model_type")) in _SENTENCEPIECE_MODELS:
        tokenizer["tokenizer_class"] = kind = "LlamaTokenizer"
    if kind in _TOKENIZER_CLASSES.values():
        tokenizer.setdefault("add_bos_token", True)


def _fix_numbers(fixed: Files, tokens: _Tokens) -> None:
    """Correct token ids without an embedding, and the wrong ids of LLaMA's first conversion."""
    for values in (fixed[CONFIG], fixed[GENERATION_CONFIG]):
        ends = [values.get("bos_token_id"), values.get("eos_token_id")]
        if ends in ([0, 1], [-1, -1]) and tokens.are_llamas():
            values |= {"bos_token_id": 1, "eos_token_id": 2}
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = values.get(key)
            if isinstance(value, list):
                kept = [each for each in value if not _is_negative(each)]
                values[key] = kept if kept or not value else None
            elif _is_negative(value) or (key == "pad_token_id" and _has_no_row(value, fixed)):
                values[key] = None


def _is_negative(token_id: object) -> bool:
    return isinstance(token_id, int) and token_id < 0


def _has_no_row(token_id: object, fixed: Files) -> bool:
    rows = fixed[CONFIG].get("vocab_size")
    return isinstance(token_id, int) and isinstance(rows, int) and token_id >= rows


def _fix_tokens(path: Path, fixed: Files, tokens: _Tokens) -> None:
    """Correct special tokens that are empty, in a list, or missing."""
    tokenizer = fixed[TOKENIZER_CONFIG]
    for values in (tokenizer, fixed[SPECIAL_TOKENS]):
        for key in TOKEN_KEYS:
            if values.get(key) is not None:
                _fix_token(values, key, fixed, tokens)
    named = {**fixed[SPECIAL_TOKENS], **tokenizer}
    if "tokenizer_class" in named or "eos_token" in named or not (path / "tokenizer.json").is_file():
        return
    for key in ("bos_token", "eos_token"):
        if (right := _right_token(key, fixed, tokens)) is not None:
            tokenizer[key] = right


def _fix_token(values: dict[str, Any], key: str, fixed: Files, tokens: _Tokens) -> None:
    token = values.pop(key)
    if isinstance(token, list) and len(token) == 1:
        token = token[0]
    if not text_of(token):
        token = _right_token(key, fixed, tokens)
    elif key == "pad_token" and _has_no_row(tokens.id_or_next(text_of(token)), fixed):
        token = None  # its id would exceed the last row of the embeddings
    if token is not None:
        values[key] = token


def _right_token(key: str, fixed: Files, tokens: _Tokens) -> str | None:
    """Return the special token according to LLaMA's vocabulary or the model's config, or None."""
    if key in _LLAMA_TOKENS and tokens.are_llamas():
        return _LLAMA_TOKENS[key][0]
    return tokens.token_of(fixed[CONFIG].get(f"{key}_id"))


def _describe(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) or (key in before) != (key in after):
            now = orjson.dumps(after[key]).decode() if key in after else "removed"
            was = orjson.dumps(before[key]).decode() if key in before else "missing"
            yield f"{name}: {key} {was} -> {now}"
