"""Merging a LoRA adapter into its base model: a safetensors folder that vLLM and transformers load like any model."""

from pathlib import Path
from typing import Any

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import obey_umask, replace_atomically
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.adapter import (
    TRAINING_MANIFEST,
    adapter_fingerprint,
    check_adapter,
    check_base,
    read_manifest,
)
from selfinstruct_local.train.data import answer_end
from selfinstruct_local.train.network import check_savable, end_with, lay_over, make_savable


def merge(model: ModelFolder, adapter: Path, out: Path) -> None:
    """Merge an adapter into the weights of `model` and save the result in the base model's precision.

    The sum is computed in float32: with matrices of rank r and scale s, W + s/r * B A (Hu et al. 2021, section 4.1).

    Args:
        model: base model; the one the adapter was trained on, if the adapter's files record it.
        adapter: a LoRA folder.
        out: an existing, empty, writable folder.

    Raises:
        UsageError: the folder has no adapter, the adapter belongs to another base model or its shapes do not match,
            or the training libraries are missing.
    """
    check_adapter(adapter)
    check_base(adapter, model)
    manifest = read_manifest(adapter)
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        message = f"merge needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise UsageError(message) from error
    base: Any = AutoModelForCausalLM.from_pretrained(model.load_path, dtype="auto", local_files_only=True)
    make_savable(base)
    tokenizer = AutoTokenizer.from_pretrained(model.load_path, local_files_only=True)
    if manifest.get("template") == "chat":
        end_with(base, answer_end(tokenizer, "chat"))
    check_savable(base, tokenizer, model)
    stored_as = base.dtype
    if size := manifest.get("settings", {}).get("pad_vocab_to"):
        base.resize_token_embeddings(pad_to_multiple_of=size)
    tuned = lay_over(base.to(torch.float32), model, adapter)
    tuned.merge_and_unload(safe_merge=True).to(stored_as).save_pretrained(out)
    tokenizer.save_pretrained(out)
    obey_umask(out)
    facts = manifest | {"merged_adapter_sha256": adapter_fingerprint(adapter)}
    with replace_atomically(out / TRAINING_MANIFEST) as stream:
        stream.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
