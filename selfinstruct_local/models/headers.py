"""Headers of safetensors files: names, dtypes, shapes and sizes of the tensors; no weights are read.

A file has 8 bytes with the length of a JSON object, that object, and the bytes of the tensors.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local.models.folder import LFS_POINTER, LFS_POINTER_FOUND

LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # limit of the format
LFS_HINT_BYTES = len(LFS_POINTER)


class TornFileError(Exception):
    """Raised for a truncated or corrupt safetensors file; the message names the fault and the fix."""


def read_header(file: Path) -> Iterator[tuple[str, str, list[int], int]]:
    """Yield name, dtype, shape and size in bytes of each tensor in a safetensors file.

    Raises:
        TornFileError: it is not a safetensors file, or its size differs from what its header says.
    """
    size = file.stat().st_size
    again = "copy it again from its source"
    with file.open("rb") as stream:
        first = stream.read(LFS_HINT_BYTES)
        if first == LFS_POINTER:
            message = f"{file.name}: {LFS_POINTER_FOUND}"
            raise TornFileError(message)
        length = int.from_bytes(first[:LENGTH_BYTES], "little")
        if not 0 < length <= min(LONGEST_HEADER, size - LENGTH_BYTES):
            message = f"{file.name}: no safetensors header; {again}"
            raise TornFileError(message)
        stream.seek(LENGTH_BYTES)
        raw = stream.read(length)
    try:
        header: dict[str, Any] = orjson.loads(raw)
        header.pop("__metadata__", None)
        tensors = [
            (name, str(each["dtype"]), list(each["shape"]), int(each["data_offsets"][1]) - int(each["data_offsets"][0]))
            for name, each in header.items()
        ]
        end = max((int(each["data_offsets"][1]) for each in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        message = f"{file.name}: corrupt safetensors header; {again}"
        raise TornFileError(message) from None
    if size != LENGTH_BYTES + length + end:
        message = f"{file.name}: {size:,} bytes, but its header says {LENGTH_BYTES + length + end:,}; {again}"
        raise TornFileError(message)
    yield from tensors
