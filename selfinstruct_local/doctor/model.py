"""A model: whole and safe, its tokenizer, and whether this machine can load and train it. No weights are loaded.

Leans on `models/folder.py`, on the headers of safetensors files (8 bytes with the length of a JSON object, the object,
the tensors' bytes), and, for the tokenizer and the plan, on transformers and torch where they are installed.
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

# Bytes of the numbers that vLLM and the trainer load in a precision of their own; others stay as they are.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Of vLLM on a CPU, unless --memory-gb says otherwise.
CACHE_BYTES = 2 * GIB
# A plan's memory does not depend on their number, once there are more than a step takes.
PLANNED_EXAMPLES = 4096
TOKENIZER_SECONDS = 120
# In a process of its own: a broken file ends in any of a dozen kinds of error, some of them raised by Rust.
_LOAD_TOKENIZER = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True, trust_remote_code=False)
text = "Name a river."
print(len(tokenizer), tokenizer.eos_token_id is not None, len(tokenizer(text)["input_ids"]) > 0)
"""


@dataclass(frozen=True, slots=True)
class Weights:
    """What lies in the safetensors files of a folder.

    Attributes:
        files: how many.
        bytes: of all tensors.
        floats: numbers that are loaded in a precision of the program's choice.
        others: bytes of what stays as it is, such as packed weights.
    """

    files: int
    bytes: int
    floats: int
    others: int

    def loaded(self, width: int) -> int:
        """Bytes in memory where a number takes `width`."""
        return self.floats * width + self.others


def check_folder(name: str | None) -> tuple[Finding, ModelFolder | None]:
    """The folder that `--model` names, or the embedded model where it is prepared."""
    if name is None and EMBEDDED_NAME not in prepared_models():
        detail = "none is named with --model, and the embedded one is not prepared yet"
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
        mends.append(f"lower --max-model-len, which is {least:,} unless given")
    if folder.notes:
        detail += f"; read with corrections: {'; '.join(folder.notes)}"
        mends.append("every command reads it so; write them into the files to end this")
    if mends:
        return Finding("model", "warn", detail, "; ".join(mends)), folder
    return Finding("model", "ok", detail), folder


def check_weights(folder: ModelFolder) -> tuple[Finding, Weights | None]:
    """Whether each file of weights is as long as its header says, and holds what the index says."""
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
    detail = f"{len(files)} file(s), {size / GIB:.2f} GiB, whole by their headers; contents are not read"
    return Finding("weights", "ok", detail), weights


def _check_index(folder: Path, found: dict[str, str]) -> None:
    index = folder / INDEX
    if not index.is_file():
        return
    wanted: dict[str, str] = orjson.loads(index.read_bytes()).get("weight_map", {})
    lost = [name for name, file in wanted.items() if found.get(name) != file]
    if lost:
        message = f"{len(lost)} tensors of the index are not where it says, first {lost[0]}; copy index and files again"
        raise TornFileError(message)


def check_tokenizer(folder: ModelFolder) -> Finding:
    """Whether transformers loads the tokenizer, and the model has an embedding for each of its tokens."""
    if find_spec("transformers") is None:
        return _untold("tokenizer")
    command = [sys.executable, "-P", "-c", _LOAD_TOKENIZER, str(folder.load_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOKENIZER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        detail = f"not loaded after {TOKENIZER_SECONDS} s"
        return Finding("tokenizer", "warn", detail, "look at the disk it lies on, and at the load of the machine")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        mend = "copy the tokenizer's files again from the same model"
        return Finding("tokenizer", "fail", f"cannot be loaded ({said})", mend)
    tokens, ends, works = done.stdout.split()
    if works != "True":
        return Finding("tokenizer", "fail", "makes no tokens of a sentence", "copy its files again from the same model")
    return _judge_tokenizer(int(tokens), ends=ends == "True", embedded=_vocabulary(folder))


def _vocabulary(folder: ModelFolder) -> int | None:
    if (rows := embedding_rows(folder)) is not None:
        return rows
    size = orjson.loads((folder.path / "config.json").read_bytes()).get("vocab_size")
    return size if isinstance(size, int) else None


def _judge_tokenizer(tokens: int, *, ends: bool, embedded: int | None) -> Finding:
    if embedded is not None and tokens > embedded:
        detail = f"{tokens:,} tokens, and the model embeds {embedded:,}: the last of them would end the engine"
        return Finding("tokenizer", "warn", detail, "take tokenizer and weights from the same model")
    if not ends:
        detail = "no end-of-sequence token: completions run to their limit"
        return Finding("tokenizer", "warn", detail, "add 'eos_token' to tokenizer_config.json")
    return Finding("tokenizer", "ok", f"{tokens:,} tokens")


def check_loading(weights: Weights, cards: Sequence[Card], available: int) -> Finding:
    """Whether the engine can hold the model: on one card, over all of them, or in main memory in float32."""
    if not cards:
        need = weights.loaded(4) + CACHE_BYTES
        detail = f"{need / GIB:.1f} GiB for float32 and a KV cache, {available / GIB:.1f} can be had"
        if need > available:
            return Finding("loading", "fail", detail, "free memory, take a smaller model, or a machine with more")
        return Finding("loading", "ok", detail)
    need = weights.loaded(2)
    room = [round(card.total * CARD_SHARE) for card in cards]
    detail = f"{need / GIB:.1f} GiB of weights, {min(room) / GIB:.1f} for vLLM on a card"
    if need < min(room):
        return Finding("loading", "ok", detail)
    if need < min(room) * len(cards):
        fewest = need // min(room) + 1
        return Finding("loading", "warn", detail, f"spread it: --tensor-parallel {fewest}, or more")
    return Finding("loading", "fail", detail, "take a smaller model, a quantized one, or more cards")


def check_training(
    folder: ModelFolder, settings: "TrainSettings", cards: Sequence[Card], available: int, *, planned: bool
) -> Finding:
    """Whether a training fits, by its plan.

    Args:
        folder: the base.
        settings: of the training.
        cards: the GPUs; a training that shards takes all, another the first.
        available: bytes of main memory, which a training without a GPU takes.
        planned: whether the training was asked about; if not, what is in its way is no failure.
    """
    status: Status = "fail" if planned else "warn"
    if find_spec("peft") is None or find_spec("transformers") is None:
        return _untold("training")
    from selfinstruct_local.train.network_size import read_config
    from selfinstruct_local.train.plan import make_plan

    if settings.method == "qlora" and find_spec("bitsandbytes") is None:
        detail = "qlora: its 4-bit base needs bitsandbytes, which is missing"
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
    where = "the card" if cards else "main memory"
    has = min(cards[0].free if cards else available, cards[0].total if cards else available)
    detail = (
        f"{settings.method}: {plan.trainable / 1e6:,.1f}M of {plan.parameters / 1e6:,.0f}M parameters learn, "
        f"{'more than ' if plan.unsized else ''}{plan.memory.total / GIB:.1f} GiB of {has / GIB:.1f} free in {where}"
    )
    # A card's reserve is the plan's own rule.
    if plan.memory.fits(has // GIB) if cards else plan.memory.total <= has:
        return Finding("training", "ok", detail)
    mend = "a smaller --batch-size or --max-length, --gradient-checkpointing; 'train --dry-run' plans it"
    return Finding("training", status, detail, mend)


def check_room(folder: ModelFolder, settings: "TrainSettings", out: Path, *, planned: bool) -> Finding:
    """Whether the checkpoints of that training fit on the disk.

    Args:
        folder: the base.
        settings: of the training.
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
    return Finding("checkpoints", "ok", f"{settings.keep_checkpoints + 1} of them and the result fit on the disk")


def _unreadable(check: str, error: OSError) -> Finding:
    detail = f"{error.filename}: cannot be read ({(error.strerror or str(error)).lower()})"
    return Finding(check, "fail", detail, "mend its rights, or the disk it lies on")


def _untold(check: str) -> Finding:
    detail = "not looked at: the libraries of training are missing"
    return Finding(check, "warn", detail, "install this package with its extra 'train'")
