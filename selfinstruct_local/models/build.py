"""Creation of a converted model in the cache: built in a temporary folder, manifest written last, then renamed.

Every folder in the cache is therefore complete. The manifest records its source files, so that a name in the cache
always refers to one model.
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
    """Return the folder `name` in the cache, created by `convert` if it is missing.

    Args:
        name: a plain folder name.
        sources: all source files, the weights first.
        convert: fills a new folder.
        check: raises UsageError if a folder is not a model or adapter; also takes the flag for its messages.
        options: other options that affect the content, for the manifest.

    Raises:
        UsageError: the name or a source is invalid, or the name is used by another model.
    """
    if not name or name in {".", ".."} or "/" in name:
        message = f"{name!r}: not a model name; use letters, digits, '.', '_' and '-'"
        raise UsageError(message)
    cache = cache_folder()
    final = cache / name
    if final.exists() and not (final / MANIFEST).exists():
        message = f"{final}: exists without a manifest, so it is not a prepared model; move it and try again"
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
            return _check_same(final, sources, options or {})  # another process created it meanwhile
    sync_folder(cache)
    return final


def _check_same(final: Path, sources: list[Path], options: Mapping[str, str]) -> Path:
    """Return the existing folder if it was made from the same sources with the same options, else raise UsageError."""
    manifest = read_json(final / MANIFEST, "--name")
    differing = _first_difference(manifest, sources)
    known = manifest.get("options", {})
    changed = [f"{key} {known.get(key, 'float32')}" for key in options if options[key] != known.get(key, "float32")]
    if differing is not None or changed:
        what = f"{differing} differs" if differing is not None else f"made with {', '.join(changed)}"
        message = f"{final}: is another model ({what}); use another --name for {sources[0].parent}"
        raise UsageError(message)
    return final


class ShardWriter:
    """Writes tensors to safetensors shards and an index as they arrive."""

    def __init__(self, target: Path, shard_bytes: int) -> None:
        """Set the folder and the maximum shard size in bytes; only a single larger tensor may exceed it."""
        self._target = target
        self._limit = shard_bytes
        self._pending: dict[str, torch.Tensor] = {}
        self._shards: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """Add a tensor, which stays in memory until its shard is full."""
        if self._pending and sum(each.nbytes for each in self._pending.values()) + tensor.nbytes > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._total += tensor.nbytes

    def close(self) -> None:
        """Write the last shard, and the index if there are several."""
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
    """Write the index of several weight files: the file of each tensor, and the total size in bytes."""
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))


def save_tensors(tensors: "dict[str, torch.Tensor]", file: Path) -> None:
    """Write a safetensors file.

    Raises:
        RunError: the disk is full, or the file cannot be written for another reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        message = f"{file.name}: cannot be written ({error}); free disk space and re-run the same command"
        raise RunError(message) from error


def _check_source(source: Path) -> None:
    """Raise UsageError for a source that is invalid by its name or its first bytes."""
    check_name(source, "SOURCE")  # the manifest records it
    if first_bytes(source) == LFS_POINTER:
        message = f"{source}: {LFS_POINTER_FOUND}"
        raise UsageError(message)


def _check_made(target: Path, source: Path, check: Callable[[Path, str], object]) -> None:
    try:
        check(target, "SOURCE")
    except UsageError as error:
        # The temporary folder is deleted by the time the user reads this.
        reason = str(error).removeprefix(f"SOURCE {target}: ")
        message = f"{source}: does not convert to a complete model: {reason}"
        raise UsageError(message) from error


def _first_difference(manifest: dict[str, Any], sources: list[Path]) -> str | None:
    """Return the name of a source that differs from the one in the manifest, or None if all are the same.

    Names and sizes are compared first. Two models of one architecture agree in both, so checksums decide then; a file
    is read only if its inode or modification time differs from that of the converted file.
    """
    if "sources" not in manifest:  # earlier releases recorded only the first source
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
    """Return size, inode and modification time, which stay the same unless a file is replaced or written to."""
    return {"bytes": stat.st_size, "inode": stat.st_ino, "modified_ns": stat.st_mtime_ns}


def _write_manifest(target: Path, sources: list[Path], options: Mapping[str, str]) -> None:
    manifest = {
        "options": dict(options),
        "sources": {source.name: {**_identity(source.stat()), "sha256": checksum(source)} for source in sources},
        "files": {file.name: checksum(file) for file in sorted(target.iterdir())},
    }
    (target / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def first_bytes(file: Path) -> bytes:
    """Return the first bytes of a file, which identify its format.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(len(LFS_POINTER))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{file}: cannot be read ({reason}); check its permissions and its disk"
        raise UsageError(message) from error
