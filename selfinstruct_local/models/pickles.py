"""Conversion of pickle weights of models and adapters to safetensors. No code in a pickle is run."""

import re
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from selfinstruct_local.errors import OutOfMemoryError, UsageError
from selfinstruct_local.models.adapter import ADAPTER_FILES, ADAPTER_PICKLE, check_adapter
from selfinstruct_local.models.build import build_folder, first_bytes, save_tensors, write_index
from selfinstruct_local.models.folder import (
    ModelFolder,
    check_all_but_weights,
    check_model_folder,
    files_of_index,
    read_json,
)

if TYPE_CHECKING:
    import torch

PICKLE_INDEX = "pytorch_model.bin.index.json"
# First bytes of the two formats of torch.save: a zip archive, and the older sequence of pickles.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
# Keys of an adapter's config that PEFT before 0.3 wrote and that no current release reads.
_GIVEN_UP = frozenset({"enable_lora", "merge_weights"})
# Errors that torch.load raises for a truncated or corrupt file, which it does not check beforehand.
_TORN = (
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


def prepare_pickle(folder: Path, name: str | None = None) -> ModelFolder:
    """Return the safetensors folder in the cache for a folder with pickle weights (`pytorch_model*.bin`).

    The folder is converted if it is missing in the cache. The pickles are read with `weights_only=True`, which loads
    tensors and rejects code. The tensors keep their names and dtypes; config, tokenizer and templates are copied.

    Raises:
        UsageError: weights, config or tokenizer are missing; a weight file is corrupt or has more than tensors; config
            or tokenizer need remote code; or the name is used by another model.
        OutOfMemoryError: memory ran out.
    """
    pickles = files_of_index(folder / PICKLE_INDEX, sorted(folder.glob("pytorch_model*.bin")), "SOURCE")
    if not pickles:
        message = f"{folder}: no pytorch_model*.bin to convert; name the folder that has the weights"
        raise UsageError(message)
    _refuse_gaps(folder, pickles)
    beside = _files_beside(folder)

    def convert(target: Path) -> None:
        check_all_but_weights(folder, "SOURCE")
        for file in beside:
            shutil.copy2(file, target / file.name)
        _convert_pickles(pickles, target)

    final = build_folder(name or folder.resolve().name, [*pickles, *beside], convert, check_model_folder)
    return check_model_folder(final)


def prepare_adapter(folder: Path, name: str | None = None) -> Path:
    """Return the safetensors folder in the cache for an adapter with pickle weights, converted if it is missing.

    PEFT before 0.6 wrote `adapter_model.bin`. The tensors get the names that PEFT writes now; earlier names may include
    the adapter's name or lack the prefix of the base model.

    Raises:
        UsageError: the weights are corrupt, have more than tensors or no LoRA matrices; the config is missing or of a
            kind that PEFT no longer supports; or the name is used by another model.
        OutOfMemoryError: memory ran out.
    """
    pickle = folder / ADAPTER_PICKLE
    config = read_json(folder / ADAPTER_FILES[0], "SOURCE")
    if config.get("enable_lora"):
        message = (
            f"SOURCE {folder}: has merged projections ('enable_lora'), which PEFT no longer supports; train it again"
        )
        raise UsageError(message)

    def convert(target: Path) -> None:
        for file in _files_beside(folder):
            shutil.copy2(file, target / file.name)
        kept = {key: value for key, value in config.items() if key not in _GIVEN_UP}
        (target / ADAPTER_FILES[0]).write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2))
        save_tensors(_named_as_today(pickle, load_pickle(pickle)), target / ADAPTER_FILES[1])

    sources = [pickle, *_files_beside(folder)]
    return build_folder(name or folder.resolve().name, sources, convert, check_adapter)


def _named_as_today(file: Path, tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return the tensors under the names that PEFT uses now.

    Raises:
        UsageError: none is a LoRA matrix, or two tensors would get the same name.
    """
    named = {_name_today(key): value for key, value in tensors.items()}
    if not any("lora_" in key for key in named) or len(named) < len(tensors):
        message = f"{file}: not the weights of one LoRA adapter; get adapter_model.safetensors from its source"
        raise UsageError(message)
    return named


def _name_today(key: str) -> str:
    """Return the full name of a tensor in a PEFT model, without wrappers and adapter name.

    `model.layers.0.q_proj.lora_A.default.weight` becomes `base_model.model.model.layers.0.q_proj.lora_A.weight`.
    """
    key = re.sub(r"^module\.|_orig_mod\.|_fsdp_wrapped_module\.", "", key)
    key = re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)
    key = re.sub(r"(\.lora_[AB])\.[^.]+\.(weight|bias)$", r"\1.\2", key)
    key = re.sub(r"(\.lora_embedding_[AB])\.[^.]+$", r"\1", key)
    return key if key.startswith("base_model.") else f"base_model.model.{key}"


def _files_beside(folder: Path) -> list[Path]:
    """Return the data files of a folder except for the weights: config, tokenizer, templates."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in {".json", ".model", ".txt", ".jinja"} and "index" not in file.name
    ]


def _refuse_gaps(folder: Path, pickles: list[Path]) -> None:
    """Raise UsageError if there are fewer shards than their names say; some folders have no index."""
    for file in pickles:
        shard = re.fullmatch(r"pytorch_model-\d+-of-(\d+)", file.stem)
        if shard and len(pickles) < int(shard[1]):
            message = f"SOURCE {folder}: has {len(pickles)} of {int(shard[1])} weight files; copy the others too"
            raise UsageError(message)


def _convert_pickles(pickles: list[Path], target: Path) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for number, file in enumerate(pickles, start=1):
        tensors = load_pickle(file)
        name = f"model-{number:05}-of-{len(pickles):05}.safetensors"
        save_tensors(tensors, target / name)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
    write_index(target, weight_map, total)


def load_pickle(file: Path) -> "dict[str, torch.Tensor]":
    """Return the tensors of a file by name, each a copy: safetensors does not write tensors that share memory."""
    import pickle

    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        _refuse_other_than_tensors(file, tensors)
        return {key: value.clone().contiguous() for key, value in tensors.items()}
    except pickle.UnpicklingError as error:
        if first_bytes(file).startswith(PICKLE_STARTS):
            message = f"{file}: contains more than tensors and is not loaded; get safetensors from its source"
        else:
            message = f"{file}: not PyTorch weights; copy it again from its source"
        raise UsageError(message) from error
    except _TORN as error:
        if "allocate memory" in str(error):
            message = f"{file}: memory ran out; convert it on a machine with more memory"
            raise OutOfMemoryError(message) from error
        message = f"{file}: truncated or corrupt; copy it again from its source"
        raise UsageError(message) from error


def _refuse_other_than_tensors(file: Path, loaded: object) -> None:
    import torch

    entries: dict[object, object] = loaded if isinstance(loaded, dict) else {}
    strange = [
        str(key)
        for key, value in entries.items()
        if not (isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided)
    ]
    if entries and not strange:
        return
    seen = f"{strange[0]!r} is not a dense tensor" if strange else f"a {type(loaded).__name__} without tensors"
    message = f"{file}: not a dict of tensors ({seen}); get the model's own weights, not a training checkpoint"
    raise UsageError(message)
