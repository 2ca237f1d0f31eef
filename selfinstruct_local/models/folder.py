"""Fast checks of a model folder before anything loads the model.

A folder is valid if it has a config that needs no remote code, a tokenizer, and safetensors weights with every shard of
the index. Does not import torch.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local.errors import UsageError, one_line
from selfinstruct_local.io.files import checksum
from selfinstruct_local.models.repair import CONFIG, REPAIRED_FILES, find_repairs, make_view

_log = logging.getLogger(__name__)

MANIFEST = "selfinstruct-manifest.json"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
CHAT_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth")
# Files other than the weights that affect prompts and outputs: those that transformers and vLLM read.
DECIDING_PATTERNS = (
    "config.json",
    "generation_config.json",
    "params.json",
    "*token*.json",
    "*.model",
    "*.model.v*",
    "*.tiktoken",
    "tekken.json",
    "vocab*",
    "merges*",
    "chat_template*",
    "chat_templates/*",
    "additional_chat_templates/*",
)
WEIGHTS = "weights"
SAMPLE_BYTES = 1 << 20
# Names of the maximum context length in the configs of the model families.
CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "context_length",
)
ASSUMED_CONTEXT = 2048  # if the config does not set it and transformers does not know the model type
NO_LIMIT = sys.maxsize
LFS_POINTER = b"version https://git-lfs"
LFS_POINTER_FOUND = "a Git LFS pointer, not the file itself; run 'git lfs pull' in its repository"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A local Hugging Face model folder that passed the checks.

    Attributes:
        path: resolved path of the folder.
        architecture: architecture in its config, e.g. `LlamaForCausalLM`.
        context: maximum number of tokens, prompt and completion together; `NO_LIMIT` for models without a limit, such
            as Mamba.
        fingerprint: SHA-256 over `files`.
        files: SHA-256 by name of each file that affects prompts or outputs; under `WEIGHTS`, that of the weights (see
            `_add_samples`).
        corrected: corrected contents of JSON files that are wrong in the folder (see `repair.py`).
        notes: one line per correction.
    """

    path: Path
    architecture: str
    context: int
    fingerprint: str
    files: Mapping[str, str] = field(default_factory=dict, compare=False)
    corrected: Mapping[str, dict[str, Any]] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def load_path(self) -> Path:
        """Folder to load the model from: `path`, or a view of it with the `corrected` files.

        Raises:
            UsageError: the view cannot be written to the cache.
        """
        if not self.corrected:
            return self.path
        return make_view(self.path, dict(self.corrected), cache_folder().parent / "repaired")

    @property
    def weight_files(self) -> list[Path]:
        """Weight files, sorted by name: those in the index, if there is one, as vLLM and transformers load them."""
        return files_of_index(self.path / INDEX, sorted(self.path.glob("*.safetensors")), "--model")

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files in bytes."""
        return sum(weight.stat().st_size for weight in self.weight_files)

    @property
    def context_told(self) -> str:
        """Description of the context length."""
        return "unlimited context" if self.context == NO_LIMIT else f"context of {self.context:,} tokens"

    @property
    def has_chat_template(self) -> bool:
        """Whether the folder has a chat template, in any of the three places where transformers has stored it."""
        if any((self.path / name).exists() for name in CHAT_TEMPLATE_FILES):
            return True
        config = self.path / "tokenizer_config.json"
        return config.exists() and bool(read_json(config, "--model").get("chat_template"))

    def differences(self, fingerprint: object, files: Mapping[str, str] | None) -> list[str]:
        """Return the files in which this model differs from a recorded one; [] if it is the same.

        Args:
            fingerprint: recorded fingerprint of the other model.
            files: recorded files of the other model; None if they were not recorded.
        """
        return [] if fingerprint == self.fingerprint else differing_files(files, self.files)

    def check_context(self, tokens: int, flag: str = "--max-model-len") -> None:
        """Raise UsageError if a text would exceed the model's context.

        Args:
            tokens: number of tokens of the longest text.
            flag: flag that sets this number.

        Raises:
            UsageError: `tokens` exceeds the context; the message names the flag.
        """
        if tokens > self.context:
            message = f"{flag} {tokens}: {self.path.name} has a context of {self.context} tokens; lower it"
            raise UsageError(message)


def cache_folder() -> Path:
    """Return the folder of prepared models: in `$SELFINSTRUCT_CACHE`, else in the user's XDG cache folder."""
    chosen = os.environ.get("SELFINSTRUCT_CACHE")
    if chosen:
        return Path(chosen) / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "selfinstruct-local" / "models"


def find_model(name: str, flag: str = "--model") -> ModelFolder:
    """Return the checked folder for a path or the name of a prepared model; logs corrections.

    Raises:
        UsageError: there is no such folder, or it is incomplete or unsafe.
    """
    from selfinstruct_local.models.vocabulary import describe_surplus

    model = locate_model(name, flag)
    if model.notes:
        told = f"{flag} {name}: read with corrections; the folder is not changed ({'; '.join(model.notes)})"
        _log.warning("%s", one_line(told))
    if surplus := describe_surplus(model):
        _log.warning("%s", one_line(f"{flag} {name}: {surplus}"))
    return model


def locate_model(name: str, flag: str = "--model") -> ModelFolder:
    """Return the same as `find_model`, without logging; for callers that report corrections themselves."""
    path = Path(name).expanduser()
    if not path.exists() and "/" not in name:
        path = cache_folder() / name
    if not path.exists():
        known = ", ".join(prepared_models()) or "none yet"
        message = (
            f"{flag} {name}: no such folder, and no prepared model of that name (prepared: {known}); "
            "name a local Hugging Face folder, or run 'selfinstruct models list'"
        )
        raise UsageError(message)
    return check_model_folder(path, flag)


def prepared_models() -> list[str]:
    """Return the sorted names of the prepared models in the cache folder."""
    return sorted(entry.name for entry in _prepared() if not (entry / "adapter_config.json").exists())


def prepared_adapters() -> list[str]:
    """Return the sorted names of the converted adapters in the cache folder."""
    return sorted(entry.name for entry in _prepared() if (entry / "adapter_config.json").exists())


def _prepared() -> list[Path]:
    folder = cache_folder()
    return [entry.parent for entry in folder.glob(f"*/{MANIFEST}")] if folder.is_dir() else []


def check_model_folder(path: Path, flag: str = "--model") -> ModelFolder:
    """Return the model folder at `path` if it is complete and safe.

    Raises:
        UsageError: it is not; the message names the folder and the fix.
    """
    if not path.is_dir():
        message = f"{flag} {path}: not a folder; name the folder that has config.json"
        raise UsageError(message)
    _safe_config(path, flag)
    weights = _weight_files(path, flag)
    files = {name: read_json(path / name, flag) for name in REPAIRED_FILES if (path / name).exists()}
    corrected, notes = find_repairs(path.resolve(), files)
    architecture, context = _check_facts(path, corrected.get(CONFIG, files[CONFIG]), flag)
    digests = _digests(path, weights)
    fingerprint = hashlib.sha256(orjson.dumps(digests, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return ModelFolder(path.resolve(), architecture, context, fingerprint, digests, corrected, tuple(notes))


def check_all_but_weights(path: Path, flag: str) -> None:
    """Check config and tokenizer of a folder whose weights are not converted yet.

    Raises:
        UsageError: the folder would be invalid even with its weights in safetensors.
    """
    _check_facts(path, _safe_config(path, flag), flag)


def files_of_index(index: Path, files: list[Path], flag: str) -> list[Path]:
    """Return the `files` that an index of shards names; all if there is no index or it names none.

    Raises:
        UsageError: a file of the index is missing, or the index cannot be read.
    """
    if not index.exists():
        return files
    weight_map = read_json(index, flag).get("weight_map", {})
    if not isinstance(weight_map, dict):
        message = f"{flag} {index}: its 'weight_map' is not an object; copy the file again"
        raise UsageError(message)
    # A name that points outside the folder counts as missing.
    named = set(map(str, weight_map.values()))
    missing = sorted(named - {each.name for each in files})
    if missing:
        message = (
            f"{flag} {index.parent}: {len(missing)} weight file(s) of the index are missing, the first is "
            f"{missing[0]}; copy them too"
        )
        raise UsageError(message)
    return [each for each in files if not named or each.name in named]


def _safe_config(path: Path, flag: str) -> dict[str, Any]:
    config = read_json(path / "config.json", flag)
    _refuse_remote_code(path, config, flag)
    return config


def _check_facts(path: Path, config: dict[str, Any], flag: str) -> tuple[str, int]:
    """Return architecture and context; raise UsageError if the folder has no tokenizer or architecture."""
    if not any((path / name).exists() for name in TOKENIZER_FILES):
        message = f"{flag} {path}: no tokenizer ({' or '.join(TOKENIZER_FILES)}); copy it from the same model"
        raise UsageError(message)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        message = f"{flag} {path}: config.json names no architecture; name the folder of a causal language model"
        raise UsageError(message)
    return str(architectures[0]), _context(path, config, flag)


def _context(path: Path, config: dict[str, Any], flag: str) -> int:
    """Return the context length of a config, with its text config first; else the default of its transformers class."""
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else {}
    for part in (text, config):
        for name in CONTEXT_NAMES:
            told = part.get(name)
            if told and not isinstance(told, int):
                message = f"{flag} {path}: {name} in config.json is not an integer; copy the file again"
                raise UsageError(message)
            if told:
                return int(told)
    return _default_context(text.get("model_type") or config.get("model_type"))


def _default_context(model_type: Any) -> int:
    """Return the default context of transformers' config class for a model type."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        kind: Any = CONFIG_MAPPING[model_type]
    except (ImportError, KeyError, TypeError):
        return ASSUMED_CONTEXT
    kind = kind.sub_configs.get("text_config", kind)
    told = [getattr(kind, name) for name in CONTEXT_NAMES if isinstance(getattr(kind, name, None), int)]
    return told[0] if told else NO_LIMIT


def _refuse_remote_code(path: Path, config: dict[str, Any], flag: str) -> None:
    tokenizer_config = path / "tokenizer_config.json"
    configs = [config] + ([read_json(tokenizer_config, flag)] if tokenizer_config.exists() else [])
    if any("auto_map" in each for each in configs):
        message = (
            f"{flag} {path}: needs remote code ('auto_map'), which is never run; "
            "use a model whose architecture vLLM and transformers support"
        )
        raise UsageError(message)


def _weight_files(path: Path, flag: str) -> list[Path]:
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickles = sorted(each.name for pattern in PICKLE_PATTERNS for each in path.glob(pattern))
        if pickles:
            message = (
                f"{flag} {path}: only pickle weights ({pickles[0]}), which can run code when loaded; "
                f"convert them once with 'selfinstruct models prepare {path}'"
            )
        else:
            message = f"{flag} {path}: no *.safetensors; complete the download"
        raise UsageError(message)
    files_of_index(path / INDEX, weights, flag)
    return weights


def read_json(path: Path, flag: str) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        UsageError: the file is missing or does not contain a JSON object.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        message = f"{flag} {path.parent}: no {path.name}; name a Hugging Face model folder"
        raise UsageError(message) from None
    except orjson.JSONDecodeError as error:
        message = f"{flag} {path}: not JSON ({error.msg}); copy the file again"
        raise UsageError(message) from error
    if not isinstance(value, dict):
        message = f"{flag} {path}: not a JSON object; copy the file again"
        raise UsageError(message)
    return value


def differing_files(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> list[str]:
    """Return the files in which two models differ by their `ModelFolder.files`; None means not recorded."""
    if before is None or now is None:
        return ["config, tokenizer or weights"]
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _digests(path: Path, weights: list[Path]) -> dict[str, str]:
    """Return the checksums for `ModelFolder.files`."""
    found = {file for pattern in DECIDING_PATTERNS for file in path.glob(pattern) if file.is_file()}
    digests = {str(file.relative_to(path)): checksum(file) for file in sorted(found)}
    of_weights = hashlib.sha256()
    _add_samples(of_weights, weights)
    return {**digests, WEIGHTS: of_weights.hexdigest()}


def _add_samples(digest: "hashlib._Hash", weights: list[Path]) -> None:
    """Add name, size, and first and last MiB of each weight file to a digest.

    Weights are sampled because reading the 13 GB of LLaMA-7B would take a minute on every start of a run. The first MiB
    has the safetensors header with the name, shape and offset of every tensor.
    """
    for weight in weights:
        size = weight.stat().st_size
        digest.update(f"{weight.name}:{size}".encode())
        with weight.open("rb") as stream:
            digest.update(stream.read(SAMPLE_BYTES))
            stream.seek(max(0, size - SAMPLE_BYTES))
            digest.update(stream.read(SAMPLE_BYTES))
