"""LoRA adapter folders: completeness, base model and fingerprint. Does not import torch."""

import hashlib
from pathlib import Path
from typing import Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.folder import ModelFolder, find_model, prepared_models, read_json

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
ADAPTER_PICKLE = "adapter_model.bin"
TRAINING_MANIFEST = "training.json"


def check_adapter(folder: Path, flag: str = "--adapter") -> None:
    """Raise UsageError if a folder has no adapter with safetensors weights.

    Raises:
        UsageError: a file is missing, or the weights are pickles.
    """
    if (folder / ADAPTER_PICKLE).is_file() and not (folder / ADAPTER_FILES[1]).is_file():
        message = (
            f"{flag} {folder}: only pickle weights ({ADAPTER_PICKLE}), which can run code when loaded; "
            f"convert them once with 'selfinstruct models prepare {folder}'"
        )
        raise UsageError(message)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            message = f"{flag} {folder}: no {name}; name a folder that 'selfinstruct train' wrote"
            raise UsageError(message)


def read_manifest(folder: Path, flag: str = "--adapter") -> dict[str, Any]:
    """Return the `training.json` of an adapter or model folder, or {} if `selfinstruct train` did not make it.

    Raises:
        UsageError: the manifest is corrupt.
    """
    manifest = folder / TRAINING_MANIFEST
    return read_json(manifest, flag) if manifest.is_file() else {}


def base_of(
    adapter: Path,
    named: str | None = None,
    *,
    flag: str = "--adapter",
    base_flag: str = "--model",
    enlarges: bool = False,
) -> ModelFolder:
    """Return the base model of an adapter: the one in `named`, else the one that the adapter's files name.

    Args:
        adapter: a LoRA folder.
        named: a folder or the name of a prepared model.
        flag: flag that the adapter was given with.
        base_flag: flag that names a base model.
        enlarges: whether the caller enlarges the embeddings as `pad_vocab_to` did in the training.

    Raises:
        UsageError: the folder has no adapter; its base model is not on this machine, is another one, or needs
            enlarged embeddings.
    """
    check_adapter(adapter, flag)
    manifest = read_manifest(adapter, flag)
    if manifest.get("settings", {}).get("pad_vocab_to") and not enlarges:
        message = (
            f"{flag} {adapter}: was trained with pad_vocab_to, on larger embeddings than its base model has; run "
            "'selfinstruct merge' and name the merged folder"
        )
        raise UsageError(message)
    if named is None:
        named, base_flag = _told_base(adapter, manifest, flag, base_flag), flag
    folder = find_model(named, base_flag)
    check_base(adapter, folder, flag)
    return folder


def check_base(adapter: Path, model: ModelFolder, flag: str = "--adapter") -> None:
    """Raise UsageError if the adapter's files record another base model than `model`.

    Raises:
        UsageError: it was trained on another base model, or the files of the base model have changed.
    """
    manifest = read_manifest(adapter, flag)
    noted = manifest.get("base_model_fingerprint", model.fingerprint)
    if differing := model.differences(noted, manifest.get("base_model_files")):
        message = (
            f"{flag} {adapter}: was trained on {manifest.get('base_model', 'another base model')}, whose files "
            f"differ from those of {model.path} ({', '.join(differing)}); name the base model it was trained on"
        )
        raise UsageError(message)


def adapter_fingerprint(folder: Path) -> str:
    """Return the SHA-256 over the files of a checked adapter."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _told_base(adapter: Path, manifest: dict[str, Any], flag: str, base_flag: str) -> str:
    told = manifest.get("base_model") or read_json(adapter / ADAPTER_FILES[0], flag).get("base_model_name_or_path")
    if not isinstance(told, str) or not (Path(told).is_dir() or told in prepared_models()):
        message = (
            f"{flag} {adapter}: its base model ({told or 'unknown'}) is not on this machine; name it with {base_flag}"
        )
        raise UsageError(message)
    return told
