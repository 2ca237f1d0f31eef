"""Conversion of a GGUF file to a safetensors folder, tensor by tensor, for machines with little memory.

Names, layouts and values are those of transformers' own loader (`modeling_gguf_pytorch_utils.py`), which keeps all
tensors in memory at once. The peak memory of a conversion is one shard (`SHARD_BYTES`) plus three copies of the largest
tensor in float32.
"""

import struct
from importlib import import_module
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any, Literal

from selfinstruct_local.errors import OutOfMemoryError, UsageError
from selfinstruct_local.models.build import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

GgufDtype = Literal["float32", "float16", "bfloat16"]
SHARD_BYTES = 1 << 30
# Errors that readers raise for a file that is truncated, corrupt or of an unknown architecture.
_UNREADABLE = (ValueError, struct.error, LookupError, TypeError, AttributeError, NotImplementedError, OverflowError)
# Tokens that end a text or a turn in the vocabularies of known model families, from llama.cpp
# (src/llama-vocab.cpp, special_eog_ids); a GGUF file names one of them as its end token.
_ENDS = frozenset(
    {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>",
     "<end_of_turn>", "<turn|>", "<EOT>", "<|end_of_turn|>", "<|return|>", "<|call|>"}
)  # fmt: skip
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# RoPE scaling parameters of all releases of Llama 3.1, 3.2 and 3.3 (their config.json).
_ROPE_LOW, _ROPE_HIGH, _ROPE_POSITIONS = 1.0, 4.0, 8192
_CONTROL = 3  # gguf.TokenType.CONTROL


def convert_gguf(gguf: Path, target: Path, dtype: GgufDtype = "float32", shard_bytes: int = SHARD_BYTES) -> None:
    """Write weights, config and tokenizer of a GGUF file to a folder.

    Args:
        gguf: the GGUF file.
        target: an empty folder.
        dtype: dtype of the weights to write; quantised blocks are dequantised to float32 first.
        shard_bytes: maximum size of a weight file, unless a single tensor is larger.

    Raises:
        UsageError: the file is corrupt, lacks a tensor, or has an architecture that transformers does not read from
            GGUF; or the disk has too little free space.
        OutOfMemoryError: memory ran out.
    """
    try:
        _convert(gguf, target, dtype, shard_bytes)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        message = f"{gguf}: memory ran out; convert it on a machine with more memory"
        raise OutOfMemoryError(message) from error
    except _UNREADABLE as error:
        message = f"{gguf}: cannot be converted ({error}); copy it again, or use a file that transformers can read"
        raise UsageError(message) from error


def _convert(gguf: Path, target: Path, dtype_name: str, shard_bytes: int) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    dtype = getattr(torch, dtype_name)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    reader = GGUFReader(gguf)
    config = AutoConfig.from_pretrained(**source)
    _scale_rope(gguf, reader, config)
    tokenizer = _load_tokenizer(gguf)
    factory: Any = AutoModelForCausalLM  # its methods have no type annotations
    if _text(reader, "general.architecture") in GGUF_CONFIG_ARCHS:
        model = _load_whole(gguf, dtype)
        model.save_pretrained(target, max_shard_size=shard_bytes)
    else:
        with torch.device("meta"):
            model = factory.from_config(config, dtype=dtype)
        _check_room(gguf, target, sum(each.numel() for each in model.state_dict().values()) * dtype.itemsize)
        writer = ShardWriter(target, shard_bytes)
        for name, tensor in _stream(gguf, reader, model, dtype):
            writer.add(name, tensor)
        writer.close()
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(target)
    ends = end_tokens(reader)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    model.generation_config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _scale_rope(gguf: Path, reader: Any, config: Any) -> None:
    """Set the RoPE scaling of Llama 3.1 and later, which GGUF stores as a tensor that transformers ignores.

    Raises:
        UsageError: the frequencies are scaled differently.
    """
    import numpy as np

    found = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if found is None or np.all(found == 1):
        return
    base = config.rope_parameters["rope_theta"]
    positions = 2 * np.pi * base ** (np.arange(found.size) / found.size)  # wavelengths in tokens
    factor = float(found.max())
    share = np.clip((_ROPE_POSITIONS / positions - _ROPE_LOW) / (_ROPE_HIGH - _ROPE_LOW), 0, 1)
    if not np.allclose(found, 1 / ((1 - share) / factor + share), rtol=1e-3):
        message = f"{gguf}: its rotary frequencies are not scaled as in Llama 3; use the original weights"
        raise UsageError(message)
    config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": factor,
        "low_freq_factor": _ROPE_LOW,
        "high_freq_factor": _ROPE_HIGH,
        "original_max_position_embeddings": _ROPE_POSITIONS,
    }


def _load_tokenizer(gguf: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    except Exception as error:  # the Rust library raises bare ones
        message = f"{gguf}: its tokenizer cannot be converted ({error}); use a file that transformers can read"
        raise UsageError(message) from error


def _load_whole(gguf: Path, dtype: "torch.dtype") -> Any:
    """Return the model from transformers' newer loader, which a few architectures require; loads all weights."""
    from transformers import AutoModelForCausalLM, GgufConfig

    factory: Any = AutoModelForCausalLM
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    return factory.from_pretrained(**source, quantization_config=GgufConfig(dequantize=True), dtype=dtype)


def _stream(gguf: Path, reader: Any, model: Any, dtype: "torch.dtype") -> "Iterator[tuple[str, torch.Tensor]]":
    """Yield (name in the saved model, tensor) for all tensors of a model, each as soon as it is complete.

    Raises:
        UsageError: the file lacks a tensor of the model, or a tensor has the wrong shape.
    """
    import numpy as np
    import torch
    from gguf import dequantize
    from transformers.core_model_loading import revert_weight_conversion

    loader: Any = import_module("transformers.modeling_gguf_pytorch_utils")  # has no type annotations
    facts = loader.load_gguf_checkpoint(str(gguf), return_tensors=False)
    make_processor = loader.TENSOR_PROCESSORS.get(_text(reader, "general.architecture"), loader.TensorProcessor)
    processor = make_processor(config=facts["config"])
    names: dict[str, str] = loader.get_gguf_hf_weights_map(model, processor)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    wanted = shapes.keys() - tied
    # Processors for mixtures of experts add the tensors that they merge or split to this dict themselves.
    ready: dict[str, torch.Tensor] = {}
    left = [_target(tensor.name, names) for tensor in reader.tensors]
    for place, tensor in enumerate(reader.tensors):
        result = processor.process(
            weights=dequantize(tensor.data, tensor.tensor_type),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": ready},
        )
        if result.name in names:
            weights = result.weights
            owned = weights.flags.writeable and weights.flags.c_contiguous
            ready[names[result.name]] = torch.from_numpy(weights if owned else np.array(weights))
        del result
        for name in [each for each in ready if each not in left[place + 1 :]]:
            value = ready.pop(name).to(dtype)
            if name not in wanted:
                continue
            _check_shape(gguf, name, value.shape, shapes[name])
            wanted -= {name}
            yield from revert_weight_conversion(model, {name: value}).items()
    if wanted:
        message = (
            f"{gguf}: has no tensor for {min(wanted)}; transformers cannot read this architecture from GGUF; use "
            "safetensors"
        )
        raise UsageError(message)


def _target(name: str, names: dict[str, str]) -> str:
    """Return the parameter that a tensor of the file becomes all or part of; expert names have no suffix."""
    return names.get(name) or names.get(name.removesuffix(".weight"), "")


def _check_shape(gguf: Path, name: str, found: "torch.Size", wanted: "torch.Size") -> None:
    if found != wanted:
        message = f"{gguf}: {name} has shape {tuple(found)}, but its config says {tuple(wanted)}; copy it again"
        raise UsageError(message)


def _check_room(gguf: Path, target: Path, needed: int) -> None:
    free = disk_usage(target).free
    if free < needed:
        message = (
            f"{gguf}: its weights need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free in the cache; "
            "free disk space, use --dtype bfloat16, or set SELFINSTRUCT_CACHE to a folder on another disk"
        )
        raise UsageError(message)


def end_tokens(reader: Any) -> list[int]:
    """Return the ids of the tokens that end a text or a turn; the file's own end token comes first.

    The file names one end token, and in some cases those of turns and messages. The others are control tokens of its
    vocabulary that end texts in known model families, unless the file uses them for another purpose.
    """
    named = [_number(reader, f"tokenizer.ggml.{key}") for key in _END_KEYS]
    others = {_number(reader, f"tokenizer.ggml.{key}") for key in ("bos_token_id", "unknown_token_id")}
    field = reader.fields.get("tokenizer.ggml.tokens")
    kinds = reader.fields.get("tokenizer.ggml.token_type")
    known: list[int] = []
    if field is not None and kinds is not None:
        for number, (place, kind) in enumerate(zip(field.data, kinds.data, strict=False)):
            if int(kinds.parts[kind][0]) == _CONTROL and bytes(field.parts[place]).decode("utf-8", "replace") in _ENDS:
                known.append(number)
    found = [each for each in named if each is not None] + [each for each in known if each not in others]
    return list(dict.fromkeys(found))


def _number(reader: Any, key: str) -> int | None:
    field = reader.fields.get(key)
    return None if field is None else int(field.parts[field.data[0]][0])


def _text(reader: Any, key: str) -> str:
    field = reader.fields.get(key)
    return "" if field is None else bytes(field.parts[field.data[0]]).decode("utf-8", "replace")
