"""Makes a folder of the cache out of other files: aside, with its manifest last, and renamed into place.

So a folder that is there is whole. The manifest tells what it was made of: a name in the cache is one model.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local.errors import RunError, UsageError
from selfinstruct_local.io.files import check_name, check_writable_folder, checksum, obey_umask, sync_folder
from selfinstruct_local.models.folder import INDEX, LFS_POINTER, LFS_POINTER_FOUND, MANIFEST, cache_folder, read_json

if TYPE_CHECKING:
    import torch


def build_folder(
    name: str,
    sources: list[Path],
    convert: Callable[[Path], None],
    check: Callable[[Path, str], object],
    options: Mapping[str, str] | None = None,
) -> Path:
    """Return the folder of that name in the cache, made by `convert` if it is missing.

    Args:
        name: a plain folder name.
        sources: all files that the folder is made of, the weights first.
        convert: fills a new folder.
        check: refuses a folder that is no model or no adapter; takes the flag for its errors too.
        options: what else decides the content, for the manifest.

    Raises:
        UsageError: the name or a source is invalid, or the name is taken by something else.
    """
    if not name or name in {".", ".."} or "/" in name:
        message = f"{name!r}: not a model name; letters, digits, '.', '_' and '-'"
        raise UsageError(message)
    cache = cache_folder()
    final = cache / name
    if final.exists() and not (final / MANIFEST).exists():
        message = f"{final}: is in the way (no manifest, so not made here); move it and try again"
        raise UsageError(message)
    for source in sources:
        _check_source(source)
    if final.exists():
        return _check_same(final, sources, options or {})
    check_writable_folder(cache, "SELFINSTRUCT_CACHE")
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as aside:
        target = Path(aside) / name
        target.mkdir()
        convert(target)
        _check_made(target, sources[0], check)
        _write_manifest(target, sources, options or {})
        obey_umask(target)
        try:
            target.rename(final)
        except OSError:
            if not (final / MANIFEST).exists():
                raise
            return _check_same(final, sources, options or {})  # another process made it meanwhile
    sync_folder(cache)
    return final


def _check_same(final: Path, sources: list[Path], options: Mapping[str, str]) -> Path:
    """Return a folder that is there, if it was made of the same sources with the same options."""
    manifest = read_json(final / MANIFEST, "--name")
    differing = _first_difference(manifest, sources)
    known = manifest.get("options", {})
    changed = [f"{key} {known.get(key, 'float32')}" for key in options if options[key] != known.get(key, "float32")]
    if differing is not None or changed:
        what = f"{differing} differs" if differing is not None else f"made with {', '.join(changed)}"
        message = f"{final}: holds another model ({what}); give {sources[0].parent} another --name"
        raise UsageError(message)
    return final


class ShardWriter:
    """Writes tensors to files of weights and their index as they come: one file of safetensors after the other."""

    def __init__(self, target: Path, shard_bytes: int) -> None:
        """Writes nothing yet; a shard is closed before a tensor that would make it larger than `shard_bytes`."""
        self._target = target
        self._limit = shard_bytes
        self._pending: dict[str, torch.Tensor] = {}
        self._shards: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """Take a tensor, which stays in memory until its shard is full."""
        if self._pending and sum(each.nbytes for each in self._pending.values()) + tensor.nbytes > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._total += tensor.nbytes

    def close(self) -> None:
        """Write the rest, and the index if there are several files."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._target / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._target / file)
            weight_map |= dict.fromkeys(names, file)
        write_index(self._target, weight_map, self._total)

    def _flush(self) -> None:
        save_tensors(self._pending, self._part(len(self._shards)))
        self._shards.append(list(self._pending))
        self._pending = {}

    def _part(self, number: int) -> Path:
        return self._target / f"part-{number}.safetensors"


def write_index(target: Path, weight_map: Mapping[str, str], total: int) -> None:
    """Write the index of several files of weights: the file of each tensor, and the bytes of all."""
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))


def save_tensors(tensors: "dict[str, torch.Tensor]", file: Path) -> None:
    """Write a file of safetensors.

    Raises:
        RunError: the disk is full, or the file cannot be written for another reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        message = f"{file.name}: cannot be written ({error}); make room and run the same command again"
        raise RunError(message) from error


def _check_source(source: Path) -> None:
    """Refuses what can be told of a file without reading it through."""
    check_name(source, "SOURCE")  # the manifest notes it
    if first_bytes(source) == LFS_POINTER:
        message = f"{source}: {LFS_POINTER_FOUND}"
        raise UsageError(message)


def _check_made(target: Path, source: Path, check: Callable[[Path, str], object]) -> None:
    try:
        check(target, "SOURCE")
    except UsageError as error:
        # What is made aside is gone when this is read.
        reason = str(error).removeprefix(f"SOURCE {target}: ")
        message = f"{source}: no whole model comes of it: {reason}"
        raise UsageError(message) from error


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


def _write_manifest(target: Path, sources: list[Path], options: Mapping[str, str]) -> None:
    manifest = {
        "options": dict(options),
        "sources": {source.name: {**_identity(source.stat()), "sha256": checksum(source)} for source in sources},
        "files": {file.name: checksum(file) for file in sorted(target.iterdir())},
    }
    (target / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def first_bytes(file: Path) -> bytes:
    """Return the bytes that tell the kind of a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(len(LFS_POINTER))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{file}: cannot be read ({reason}); mend its rights, or the disk it lies on"
        raise UsageError(message) from error
