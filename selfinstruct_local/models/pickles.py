"""Turns pickle weights, of a model or of an adapter, into safetensors. No code in a pickle is run."""

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
# How the two formats of torch.save begin: a zip archive, and the older row of pickles.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
# Of the config of an adapter, what PEFT before 0.3 wrote and no release reads.
_GIVEN_UP = frozenset({"enable_lora", "merge_weights"})
# What torch.load raises over a file that is cut short or damaged: it checks none first.
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
    """Turns a folder with pickle weights (`pytorch_model*.bin`) into a safetensors folder in the cache, once.

    The pickles are read with `weights_only=True`, which takes tensors and refuses code. The tensors keep
    their names and dtypes; everything else in the folder that is data (config, tokenizer) is copied.

    Raises:
        UsageError: there are no such weights, one is missing or damaged, they hold more than tensors, config or
            tokenizer are missing or bring code, or the name is another model's.
        OutOfMemoryError: a file of weights does not fit the memory.
    """
    pickles = files_of_index(folder / PICKLE_INDEX, sorted(folder.glob("pytorch_model*.bin")), "SOURCE")
    if not pickles:
        message = f"{folder}: no pytorch_model*.bin to convert"
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
    """Turn an adapter with pickle weights (`adapter_model.bin`, of PEFT before 0.6) into one of safetensors, once.

    The tensors get the names that PEFT writes today: before, they could carry the adapter's own name, or lack what
    stands for the base.

    Returns:
        The folder in the cache.

    Raises:
        UsageError: the weights are damaged, hold more than tensors or no LoRA matrices; its config is missing or is
            of a kind that PEFT gave up; or the name is taken by something else.
        OutOfMemoryError: the file of weights does not fit the memory.
    """
    pickle = folder / ADAPTER_PICKLE
    config = read_json(folder / ADAPTER_FILES[0], "SOURCE")
    if config.get("enable_lora"):
        message = f"SOURCE {folder}: has merged projections ('enable_lora'), which PEFT no longer reads; train it again"
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
    """Return the tensors under the names that PEFT gives them today.

    Raises:
        UsageError: none is a LoRA matrix, or two would get one name.
    """
    named = {_name_today(key): value for key, value in tensors.items()}
    if not any("lora_" in key for key in named) or len(named) < len(tensors):
        message = f"{file}: no weights of one LoRA adapter; get adapter_model.safetensors from its source"
        raise UsageError(message)
    return named


def _name_today(key: str) -> str:
    """Return the name of a tensor without wrappers and adapter name, from the root of a PEFT model.

    `model.layers.0.q_proj.lora_A.default.weight` becomes `base_model.model.model.layers.0.q_proj.lora_A.weight`.
    """
    key = re.sub(r"^module\.|_orig_mod\.|_fsdp_wrapped_module\.", "", key)
    key = re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)
    key = re.sub(r"(\.lora_[AB])\.[^.]+\.(weight|bias)$", r"\1.\2", key)
    key = re.sub(r"(\.lora_embedding_[AB])\.[^.]+$", r"\1", key)
    return key if key.startswith("base_model.") else f"base_model.model.{key}"


def _files_beside(folder: Path) -> list[Path]:
    """Return what is data in a folder beside the weights: config, tokenizer, templates."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in {".json", ".model", ".txt", ".jinja"} and "index" not in file.name
    ]


def _refuse_gaps(folder: Path, pickles: list[Path]) -> None:
    """Refuses shards that are fewer than their names say: not each folder has an index."""
    for file in pickles:
        shard = re.fullmatch(r"pytorch_model-\d+-of-(\d+)", file.stem)
        if shard and len(pickles) < int(shard[1]):
            message = f"SOURCE {folder}: {len(pickles)} of the {int(shard[1])} files of weights; copy the others too"
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
    """The tensors of a file by their names, each in memory of its own: safetensors refuses to write any twice."""
    import pickle

    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        _refuse_other_than_tensors(file, tensors)
        return {key: value.clone().contiguous() for key, value in tensors.items()}
    except pickle.UnpicklingError as error:
        if first_bytes(file).startswith(PICKLE_STARTS):
            message = f"{file}: holds more than tensors and is not loaded; get safetensors from its source"
        else:
            message = f"{file}: no weights of PyTorch; copy it again from its source"
        raise UsageError(message) from error
    except _TORN as error:
        if "allocate memory" in str(error):
            message = f"{file}: does not fit the memory; convert it on a machine with more"
            raise OutOfMemoryError(message) from error
        message = f"{file}: not whole; copy it again from its source"
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
    seen = f"{strange[0]!r} is no plain tensor" if strange else f"a {type(loaded).__name__} without one"
    message = (
        f"{file}: not tensors by their names ({seen}); get the model's own weights, not a checkpoint of a training"
    )
    raise UsageError(message)
