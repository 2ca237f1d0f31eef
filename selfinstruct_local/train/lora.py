"""LoRA fine-tuning of a local model, on TRL's SFTTrainer and PEFT.

Leaves in the output folder: the adapter as safetensors, `loss.csv` with a line a step, and `training.json`, which
says what was trained on what and is written last.
"""

import csv
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local import __version__
from selfinstruct_local.config import TrainSettings
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.files import replace_atomically
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.tasks import Task
from selfinstruct_local.train.data import TrainingData, build_examples

if TYPE_CHECKING:
    from transformers import TrainerCallback

MANIFEST = "training.json"
LOSS_FILE = "loss.csv"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training left.

    Attributes:
        folder: the adapter's.
        data: examples and what was dropped.
        losses: (step, epoch, loss) of each optimizer step; the loss is the mean over its supervised tokens.
        seconds: of the training alone.
    """

    folder: Path
    data: TrainingData
    losses: list[tuple[int, float, float]]
    seconds: float

    @property
    def epoch_losses(self) -> list[float]:
        """Mean loss of each epoch: the same examples each time, so a fall is learning and not luck."""
        by_epoch: dict[int, list[float]] = {}
        for _, epoch, loss in self.losses:
            by_epoch.setdefault(ceil(epoch), []).append(loss)
        return [sum(each) / len(each) for _, each in sorted(by_epoch.items())]


def train_lora(
    tasks: Sequence[Task],
    model: ModelFolder,
    out: Path,
    settings: TrainSettings,
    callbacks: "Sequence[TrainerCallback]" = (),
) -> TrainingResult:
    """Tunes LoRA matrices on the attention and MLP projections of `model` and saves them to `out`.

    Args:
        tasks: what to learn; one example an instance.
        model: the base.
        out: an existing, writable folder.
        settings: see `TrainSettings`.
        callbacks: told of every step, for a display.

    Raises:
        WrongUseError: the training libraries are missing, or no example is left.
    """
    _quieten()
    try:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        message = f"training needs '{error.name}', which is missing; install this package with its extra 'train'"
        raise WrongUseError(message) from error
    tokenizer = AutoTokenizer.from_pretrained(model.path, local_files_only=True)
    data = build_examples(tasks, tokenizer, settings.max_length)
    if not data.examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items()) or "no tasks"
        message = f"--data: no example is left to train on ({reasons}); see --max-length"
        raise WrongUseError(message)
    on_gpu = torch.cuda.is_available()
    network = AutoModelForCausalLM.from_pretrained(
        model.path, dtype=torch.bfloat16 if on_gpu else torch.float32, local_files_only=True
    )
    arguments = SFTConfig(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,  # a float below 1 is a share of all steps
        max_length=None,  # examples are already within the limit
        seed=settings.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not on_gpu,
        bf16=on_gpu,
        # Recomputing activations saves memory that a small model on a CPU does not lack.
        gradient_checkpointing=on_gpu,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    columns = {
        "input_ids": [example.input_ids for example in data.examples],
        "labels": [example.labels for example in data.examples],
    }
    trainer = SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=list(callbacks),
    )
    _drop_console_callbacks(trainer)
    outcome = trainer.train()
    trainer.save_model(str(out))
    losses = [
        (int(entry["step"]), float(entry["epoch"]), float(entry["loss"]))
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    result = TrainingResult(out, data, losses, outcome.metrics["train_runtime"])
    _write_records(result, model, settings)
    return result


def _write_records(result: TrainingResult, model: ModelFolder, settings: TrainSettings) -> None:
    with (result.folder / LOSS_FILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "epoch", "loss"])
        writer.writerows(result.losses)
    manifest = {
        "version": __version__,
        "base_model": str(model.path),
        "base_model_fingerprint": model.fingerprint,
        "template": "alpaca",
        "settings": settings.model_dump(mode="json"),
        "examples": len(result.data.examples),
        "supervised_tokens": result.data.supervised_tokens,
        "dropped": result.data.dropped,
    }
    with replace_atomically(result.folder / MANIFEST) as stream:
        stream.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def _drop_console_callbacks(trainer: Any) -> None:
    """Takes off the callback that prints every log entry as a dict; a display of ours says it better."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _quieten() -> None:
    """Keeps the libraries' notices about things that are as intended off the terminal."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("transformers", "trl", "peft", "accelerate", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
