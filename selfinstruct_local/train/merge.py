"""Folds an adapter into its base: a folder of safetensors that vLLM and transformers load like any model."""

from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local.chat import TRAINING_MANIFEST, read_manifest
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.files import replace_atomically
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.adapter import adapter_fingerprint, check_adapter
from selfinstruct_local.train.network import make_savable


def check_base(model: ModelFolder, adapter: Path) -> dict[str, Any]:
    """Checks that an adapter was trained on this base, where that is told, and gives what is told of it.

    Raises:
        WrongUseError: no adapter lies there, or it belongs to another base.
    """
    check_adapter(adapter)
    manifest = read_manifest(adapter)
    trained_on = manifest.get("base_model_fingerprint", model.fingerprint)
    if trained_on != model.fingerprint:
        message = (
            f"--adapter {adapter}: was trained on {manifest['base_model']}, whose files are not those of {model.path}"
        )
        raise WrongUseError(message)
    return manifest


def merge(model: ModelFolder, adapter: Path, out: Path) -> None:
    """Adds the adapter's matrices to the weights of `model` and saves the sum in the base's own precision.

    The sum is taken in float32: with matrices of rank r and scale s, W + s/r * B A (Hu et al. 2021, section 4.1).

    Args:
        model: the base; the very one that the adapter was trained on, where that is told.
        adapter: a LoRA folder.
        out: an existing, empty, writable folder.

    Raises:
        WrongUseError: no adapter lies there, it belongs to another base, or the training libraries are missing.
    """
    manifest = check_base(model, adapter)
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        message = f"merge needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise WrongUseError(message) from error
    base: Any = AutoModelForCausalLM.from_pretrained(model.path, dtype="auto", local_files_only=True)
    make_savable(base)
    stored_as = base.dtype
    if size := manifest.get("settings", {}).get("pad_vocab_to"):
        base.resize_token_embeddings(pad_to_multiple_of=size)
    tuned: Any = PeftModel.from_pretrained(base.to(torch.float32), str(adapter))
    tuned.merge_and_unload(safe_merge=True).to(stored_as).save_pretrained(out)
    AutoTokenizer.from_pretrained(model.path, local_files_only=True).save_pretrained(out)
    facts = manifest | {"merged_adapter_sha256": adapter_fingerprint(adapter)}
    with replace_atomically(out / TRAINING_MANIFEST) as stream:
        stream.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
