"""Checks of a model: completeness, tokenizer, and whether this machine can load and train it. No weights are loaded.

The checks of tokenizer and training need transformers and torch.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from selfinstruct_local.doctor.finding import Finding, Status
from selfinstruct_local.doctor.hardware import CARD_SHARE, GIB, Card
from selfinstruct_local.engines.serve import ServeSettings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import EMBEDDED_NAME, ModelFolder
from selfinstruct_local.models.folder import INDEX, locate_model, prepared_models
from selfinstruct_local.models.headers import TornFileError, read_header
from selfinstruct_local.models.vocabulary import embedding_rows

if TYPE_CHECKING:
    from selfinstruct_local.train.settings import TrainSettings

# Bytes per number of the dtypes that vLLM and the trainer convert to another precision; others keep their dtype.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# KV cache of vLLM on a CPU, the default of --memory-gb.
CACHE_BYTES = 2 * GIB
# The planned memory does not depend on the number of examples, if there are more than one step needs.
PLANNED_EXAMPLES = 4096
TOKENIZER_SECONDS = 120
# Runs in a child process: a corrupt file can raise any of a dozen kinds of error, some of them from Rust.
_LOAD_TOKENIZER = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True, trust_remote_code=False)
text = "Name a river."
print(len(tokenizer), tokenizer.eos_token_id is not None, len(tokenizer(text)["input_ids"]) > 0)
"""


@dataclass(frozen=True, slots=True)
class Weights:
    """Size of the safetensors files of a folder.

    Attributes:
        files: number of files.
        bytes: size of all tensors in bytes.
        floats: number of values that are loaded in a configurable precision.
        others: bytes of all other values, such as packed weights.
    """

    files: int
    bytes: int
    floats: int
    others: int

    def loaded(self, width: int) -> int:
        """Return the size in memory in bytes, with `width` bytes per converted value."""
        return self.floats * width + self.others


def check_folder(name: str | None) -> tuple[Finding, ModelFolder | None]:
    """Check the model folder `name`, or the embedded model if it is None and prepared; return finding and folder."""
    if name is None and EMBEDDED_NAME not in prepared_models():
        detail = "no --model is given, and the embedded model is not prepared yet"
        return Finding("model", "warn", detail, "name one, or run 'selfinstruct models prepare' (a minute)"), None
    try:
        folder = locate_model(name or EMBEDDED_NAME)
    except UsageError as error:
        return Finding.of_error("model", error), None
    except OSError as error:
        return _unreadable("model", error), None
    chat = "with" if folder.has_chat_template else "without"
    detail = f"{folder.path}: {folder.architecture}, {folder.context_told}, {chat} a chat template"
    mends = []
    least = ServeSettings().max_model_len
    if folder.context < least:
        mends.append(f"lower --max-model-len (default {least:,})")
    if folder.notes:
        detail += f"; read with corrections: {'; '.join(folder.notes)}"
        mends.append("every command applies these corrections; edit the files to remove this warning")
    if mends:
        return Finding("model", "warn", detail, "; ".join(mends)), folder
    return Finding("model", "ok", detail), folder


def check_weights(folder: ModelFolder) -> tuple[Finding, Weights | None]:
    """Check each weight file against its header and the index; return the finding and the sizes."""
    found: dict[str, str] = {}
    size = floats = others = 0
    files = folder.weight_files
    try:
        for file in files:
            for name, kind, shape, length in read_header(file):
                found[name] = file.name
                size += length
                floats += prod(shape) if kind in FLOATS else 0
                others += 0 if kind in FLOATS else length
        _check_index(folder.path, found)
    except TornFileError as error:
        return Finding.of_error("weights", error), None
    except OSError as error:
        return _unreadable("weights", error), None
    weights = Weights(len(files), size, floats, others)
    detail = f"{len(files)} file(s), {size / GIB:.2f} GiB, complete according to their headers; contents are not read"
    return Finding("weights", "ok", detail), weights


def _check_index(folder: Path, found: dict[str, str]) -> None:
    index = folder / INDEX
    if not index.is_file():
        return
    wanted: dict[str, str] = orjson.loads(index.read_bytes()).get("weight_map", {})
    lost = [name for name, file in wanted.items() if found.get(name) != file]
    if lost:
        message = (
            f"{len(lost)} tensors of the index are not in the files it names, the first is {lost[0]}; copy index and "
            "files again"
        )
        raise TornFileError(message)


def check_tokenizer(folder: ModelFolder) -> Finding:
    """Check that transformers can load the tokenizer, and that each of its tokens has an embedding."""
    if find_spec("transformers") is None:
        return _untold("tokenizer")
    command = [sys.executable, "-P", "-c", _LOAD_TOKENIZER, str(folder.load_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOKENIZER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        detail = f"not loaded after {TOKENIZER_SECONDS} s"
        return Finding("tokenizer", "warn", detail, "check the disk and the load of the machine")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        mend = "copy the tokenizer's files again from the same model"
        return Finding("tokenizer", "fail", f"cannot be loaded ({said})", mend)
    tokens, ends, works = done.stdout.split()
    if works != "True":
        return Finding("tokenizer", "fail", "returns no tokens", "copy its files again from the same model")
    return _judge_tokenizer(int(tokens), ends=ends == "True", embedded=_vocabulary(folder))


def _vocabulary(folder: ModelFolder) -> int | None:
    if (rows := embedding_rows(folder)) is not None:
        return rows
    size = orjson.loads((folder.path / "config.json").read_bytes()).get("vocab_size")
    return size if isinstance(size, int) else None


def _judge_tokenizer(tokens: int, *, ends: bool, embedded: int | None) -> Finding:
    if embedded is not None and tokens > embedded:
        detail = f"{tokens:,} tokens, but only {embedded:,} embedding rows: a token without a row crashes the engine"
        return Finding("tokenizer", "warn", detail, "use tokenizer and weights of the same model")
    if not ends:
        detail = "no end-of-sequence token: completions run to their length limit"
        return Finding("tokenizer", "warn", detail, "add 'eos_token' to tokenizer_config.json")
    return Finding("tokenizer", "ok", f"{tokens:,} tokens")


def check_loading(weights: Weights, cards: Sequence[Card], available: int) -> Finding:
    """Check that the model fits: on one GPU, over all GPUs, or, without a GPU, in main memory in float32."""
    if not cards:
        need = weights.loaded(4) + CACHE_BYTES
        detail = f"{need / GIB:.1f} GiB for float32 weights and a KV cache, {available / GIB:.1f} GiB available"
        if need > available:
            return Finding("loading", "fail", detail, "free memory, or use a smaller model or a larger machine")
        return Finding("loading", "ok", detail)
    need = weights.loaded(2)
    room = [round(card.total * CARD_SHARE) for card in cards]
    detail = f"{need / GIB:.1f} GiB of weights, {min(room) / GIB:.1f} GiB for vLLM per GPU"
    if need < min(room):
        return Finding("loading", "ok", detail)
    if need < min(room) * len(cards):
        fewest = need // min(room) + 1
        return Finding("loading", "warn", detail, f"use --tensor-parallel {fewest} or more")
    return Finding("loading", "fail", detail, "use a smaller model, a quantized one, or more GPUs")


def check_training(
    folder: ModelFolder, settings: "TrainSettings", cards: Sequence[Card], available: int, *, planned: bool
) -> Finding:
    """Check that a training fits in memory, according to its plan.

    Args:
        folder: base model.
        settings: settings of the training.
        cards: the GPUs; a sharded training uses all, any other the first.
        available: bytes of available main memory, for training without a GPU.
        planned: whether the user plans this training; if not, problems are only warnings.
    """
    status: Status = "fail" if planned else "warn"
    if find_spec("peft") is None or find_spec("transformers") is None:
        return _untold("training")
    from selfinstruct_local.train.network_size import read_config
    from selfinstruct_local.train.plan import make_plan

    if settings.method == "qlora" and find_spec("bitsandbytes") is None:
        detail = "qlora: its 4-bit base model needs bitsandbytes, which is missing"
        return Finding("training", status, detail, "install this package with its extra 'train'")
    try:
        plan = make_plan(
            read_config(folder.load_path),
            settings,
            tokens_per_example=None,
            supervised_tokens=None,
            examples=PLANNED_EXAMPLES,
            devices=max(1, len(cards)) if settings.fsdp else 1,
            on_gpu=bool(cards),
        )
    except UsageError as error:
        return Finding.of_error("training", error, status)
    where = "on the GPU" if cards else "in main memory"
    has = min(cards[0].free if cards else available, cards[0].total if cards else available)
    detail = (
        f"{settings.method}: {plan.trainable / 1e6:,.1f}M of {plan.parameters / 1e6:,.0f}M parameters trainable, needs "
        f"{'more than ' if plan.unsized else ''}{plan.memory.total / GIB:.1f} of {has / GIB:.1f} GiB free {where}"
    )
    # For a GPU, the plan accounts for the reserve.
    if plan.memory.fits(has // GIB) if cards else plan.memory.total <= has:
        return Finding("training", "ok", detail)
    mend = "lower --batch-size or --max-length, or use --gradient-checkpointing; 'train --dry-run' shows the plan"
    return Finding("training", status, detail, mend)


def check_room(folder: ModelFolder, settings: "TrainSettings", out: Path, *, planned: bool) -> Finding:
    """Check that the checkpoints of a training fit on the disk.

    Args:
        folder: base model.
        settings: settings of the training.
        out: an existing folder.
        planned: as in `check_training`.
    """
    if find_spec("peft") is None or find_spec("transformers") is None:
        return _untold("checkpoints")
    from selfinstruct_local.train.folder import check_room as check_training_room

    try:
        check_training_room(out, folder, settings)
    except UsageError as error:
        return Finding.of_error("checkpoints", error, "fail" if planned else "warn")
    return Finding("checkpoints", "ok", f"{settings.keep_checkpoints + 1} checkpoints and the result fit on the disk")


def _unreadable(check: str, error: OSError) -> Finding:
    detail = f"{error.filename}: cannot be read ({(error.strerror or str(error)).lower()})"
    return Finding(check, "fail", detail, "check its permissions and its disk")


def _untold(check: str) -> Finding:
    detail = "not checked: the training libraries are not installed"
    return Finding(check, "warn", detail, "install this package with its extra 'train'")
