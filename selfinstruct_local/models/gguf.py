"""Converts a GGUF file to a folder of safetensors, tensor by tensor, so that it fits the memory of a small machine.

Names, layouts and values are those of transformers' own loader (`modeling_gguf_pytorch_utils.py`), which holds all
tensors at once. The peak of a conversion is a shard (`SHARD_BYTES`) and three copies of the largest tensor in float32.
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
# What readers raise over a file that is cut short, damaged, or of an architecture that they do not know.
_UNREADABLE = (ValueError, struct.error, LookupError, TypeError, AttributeError, NotImplementedError, OverflowError)
# The tokens that end a text or a turn in the vocabularies of the known families, as llama.cpp has them
# (src/llama-vocab.cpp, special_eog_ids); a GGUF file names one of them as its end token.
_ENDS = frozenset(
    {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>",
     "<end_of_turn>", "<turn|>", "<EOT>", "<|end_of_turn|>", "<|return|>", "<|call|>"}
)  # fmt: skip
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Of the rotary scaling of all releases of Llama 3.1, 3.2 and 3.3 (their config.json).
_ROPE_LOW, _ROPE_HIGH, _ROPE_POSITIONS = 1.0, 4.0, 8192
_CONTROL = 3  # gguf.TokenType.CONTROL


def convert_gguf(gguf: Path, target: Path, dtype: GgufDtype = "float32", shard_bytes: int = SHARD_BYTES) -> None:
    """Write weights, config and tokenizer of a GGUF file to a folder.

    Args:
        gguf: the file.
        target: an empty folder.
        dtype: of the weights; the file's own blocks are unpacked to float32 first.
        shard_bytes: size of a file of weights, unless a single tensor is larger.

    Raises:
        UsageError: the file is damaged, is of an architecture that transformers does not read from GGUF, lacks a
            tensor, or there is too little room on the disk.
        OutOfMemoryError: a tensor does not fit the memory.
    """
    try:
        _convert(gguf, target, dtype, shard_bytes)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        message = f"{gguf}: does not fit the memory; convert it on a machine with more"
        raise OutOfMemoryError(message) from error
    except _UNREADABLE as error:
        message = f"{gguf}: cannot be converted ({error}); copy it again, or take one that transformers reads"
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
    factory: Any = AutoModelForCausalLM  # its methods have no types
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
    """Set the rotary scaling of Llama 3.1 and later, which a file holds as a tensor that transformers passes over.

    Raises:
        UsageError: the frequencies are scaled in another way.
    """
    import numpy as np

    found = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if found is None or np.all(found == 1):
        return
    base = config.rope_parameters["rope_theta"]
    positions = 2 * np.pi * base ** (np.arange(found.size) / found.size)  # tokens in which a frequency goes round once
    factor = float(found.max())
    share = np.clip((_ROPE_POSITIONS / positions - _ROPE_LOW) / (_ROPE_HIGH - _ROPE_LOW), 0, 1)
    if not np.allclose(found, 1 / ((1 - share) / factor + share), rtol=1e-3):
        message = f"{gguf}: its rotary frequencies are scaled in a way that is not Llama 3's; take the original weights"
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
    except Exception as error:  # the library in Rust raises bare ones
        message = f"{gguf}: its tokenizer cannot be converted ({error}); take a file that transformers reads"
        raise UsageError(message) from error


def _load_whole(gguf: Path, dtype: "torch.dtype") -> Any:
    """Load by the newer loader of transformers, which a few architectures have only; it takes the whole memory."""
    from transformers import AutoModelForCausalLM, GgufConfig

    factory: Any = AutoModelForCausalLM
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    return factory.from_pretrained(**source, quantization_config=GgufConfig(dequantize=True), dtype=dtype)


def _stream(gguf: Path, reader: Any, model: Any, dtype: "torch.dtype") -> "Iterator[tuple[str, torch.Tensor]]":
    """Yield the tensors of a model under the names of its saved form, each as soon as it is complete.

    Raises:
        UsageError: the file lacks a tensor of the model, or one has another shape.
    """
    import numpy as np
    import torch
    from gguf import dequantize
    from transformers.core_model_loading import revert_weight_conversion

    loader: Any = import_module("transformers.modeling_gguf_pytorch_utils")  # without types
    facts = loader.load_gguf_checkpoint(str(gguf), return_tensors=False)
    make_processor = loader.TENSOR_PROCESSORS.get(_text(reader, "general.architecture"), loader.TensorProcessor)
    processor = make_processor(config=facts["config"])
    names: dict[str, str] = loader.get_gguf_hf_weights_map(model, processor)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    wanted = shapes.keys() - tied
    # Processors of mixtures of experts put what they join or split here themselves.
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
        message = f"{gguf}: has no tensor for {min(wanted)}; transformers does not read this kind of model from GGUF"
        raise UsageError(message)


def _target(name: str, names: dict[str, str]) -> str:
    """Return the parameter that a tensor of the file becomes, or a part of; names of experts lack their suffix."""
    return names.get(name) or names.get(name.removesuffix(".weight"), "")


def _check_shape(gguf: Path, name: str, found: "torch.Size", wanted: "torch.Size") -> None:
    if found != wanted:
        message = f"{gguf}: {name} has the shape {tuple(found)}, and its config says {tuple(wanted)}; copy it again"
        raise UsageError(message)


def _check_room(gguf: Path, target: Path, needed: int) -> None:
    free = disk_usage(target).free
    if free < needed:
        message = (
            f"{gguf}: its weights take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free there; "
            "make room, take --dtype bfloat16, or set SELFINSTRUCT_CACHE to another disk"
        )
        raise UsageError(message)


def end_tokens(reader: Any) -> list[int]:
    """Return the numbers of the tokens that end a text or a turn; the end token of the file comes first.

    The file names one, and in part those of turns and messages. The others are the control tokens of its vocabulary
    that end texts in the known families, unless the file uses them for something else.
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
