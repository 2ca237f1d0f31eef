"""LoRA folders: whether one is whole, and what a run notes of it. Nothing here imports torch."""

import hashlib
from pathlib import Path

from selfinstruct_local.errors import WrongUseError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_adapter(folder: Path) -> None:
    """Checks that an adapter lies in a folder.

    Raises:
        WrongUseError: none does.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            message = f"--adapter {folder}: no {name}; give a folder that 'selfinstruct train' wrote"
            raise WrongUseError(message)


def adapter_fingerprint(folder: Path) -> str:
    """SHA-256 over the files of a checked adapter."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
