"""LoRA folders: whether one is whole, the base it goes over, and what a run notes of it. Nothing here imports torch."""

import hashlib
from pathlib import Path
from typing import Any

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.folder import ModelFolder, find_model, prepared_models, read_json

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
ADAPTER_PICKLE = "adapter_model.bin"
TRAINING_MANIFEST = "training.json"


def check_adapter(folder: Path, flag: str = "--adapter") -> None:
    """Checks that an adapter lies in a folder.

    Raises:
        UsageError: none does, or its weights are pickles.
    """
    if (folder / ADAPTER_PICKLE).is_file() and not (folder / ADAPTER_FILES[1]).is_file():
        message = (
            f"{flag} {folder}: only pickle weights ({ADAPTER_PICKLE}), which can run code when loaded; "
            f"convert them once with 'selfinstruct models prepare {folder}'"
        )
        raise UsageError(message)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            message = f"{flag} {folder}: no {name}; give a folder that 'selfinstruct train' wrote"
            raise UsageError(message)


def read_manifest(folder: Path, flag: str = "--adapter") -> dict[str, Any]:
    """What `selfinstruct train` wrote beside the adapter or model in a folder, or {} for one made elsewhere.

    Raises:
        UsageError: the manifest is broken.
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
    """The base that an adapter goes over: the one that is named, else the one that its own files name.

    Args:
        adapter: a LoRA folder.
        named: a folder, or the name of a prepared model.
        flag: that the adapter was given with.
        base_flag: that names a base.
        enlarges: whether the caller gives the base the embeddings that `pad_vocab_to` gave it in the training.

    Raises:
        UsageError: no adapter lies there, its base is not here and none is named, or it was trained on another; or
            it cannot be laid over the base as that is.
    """
    check_adapter(adapter, flag)
    manifest = read_manifest(adapter, flag)
    if manifest.get("settings", {}).get("pad_vocab_to") and not enlarges:
        message = (
            f"{flag} {adapter}: was trained with pad_vocab_to, on embeddings that its base has not; fold it in with "
            "'selfinstruct merge' and name the merged folder"
        )
        raise UsageError(message)
    if named is None:
        named, base_flag = _told_base(adapter, manifest, flag, base_flag), flag
    folder = find_model(named, base_flag)
    check_base(adapter, folder, flag)
    return folder


def check_base(adapter: Path, model: ModelFolder, flag: str = "--adapter") -> None:
    """Checks that an adapter was trained on this base, where that is told.

    Raises:
        UsageError: it was trained on another, or on one whose files have changed.
    """
    manifest = read_manifest(adapter, flag)
    noted = manifest.get("base_model_fingerprint", model.fingerprint)
    if differing := model.differences(noted, manifest.get("base_model_files")):
        message = (
            f"{flag} {adapter}: was trained on {manifest.get('base_model', 'another base')}, whose files were not "
            f"those of {model.path} ({', '.join(differing)}); name the base that it was trained on"
        )
        raise UsageError(message)


def adapter_fingerprint(folder: Path) -> str:
    """SHA-256 over the files of a checked adapter."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _told_base(adapter: Path, manifest: dict[str, Any], flag: str, base_flag: str) -> str:
    told = manifest.get("base_model") or read_json(adapter / ADAPTER_FILES[0], flag).get("base_model_name_or_path")
    if not isinstance(told, str) or not (Path(told).is_dir() or told in prepared_models()):
        message = (
            f"{flag} {adapter}: the base of this adapter ({told or 'not told'}) is not here; name it with {base_flag}"
        )
        raise UsageError(message)
    return told
