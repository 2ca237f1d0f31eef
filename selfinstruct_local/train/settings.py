"""Settings of `selfinstruct train`: defaults < preset < YAML file < command line. Does not import torch."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.templates.alpaca import TemplateName

Method = Literal["lora", "qlora", "full"]
Batching = Literal["padding-free", "padded", "packed"]
Overlong = Literal["drop", "truncate"]
Precision = Literal["auto", "bf16", "fp32"]
PRESETS = ("alpaca-7b", "lora-7b", "qlora-7b", "demo-cpu")


class TrainSettings(BaseModel):
    """All settings of a training; all except for the last group affect the trained model."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: Method = Field("lora", description="lora, qlora (LoRA on a 4-bit base model) or full")
    epochs: float = Field(3.0, gt=0, description="number of passes over the data")
    max_steps: int = Field(-1, ge=-1, description="maximum number of optimizer steps; -1 uses epochs instead")
    batch_size: int = Field(4, ge=1, description="examples per forward pass and device")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes per optimizer step")
    global_batch_size: int | None = Field(
        None, ge=1, description="examples per optimizer step over all devices; sets gradient_accumulation"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="learning rate schedule after warm-up"
    )
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="fraction of steps with learning rate warm-up")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of AdamW")
    max_grad_norm: float = Field(1.0, ge=0, description="gradient clipping norm; 0 disables clipping")

    template: TemplateName = Field(
        "alpaca", description="alpaca, exactly as published, or chat, the model's chat template"
    )
    max_length: int = Field(512, ge=16, description="maximum tokens per example, prompt and response together")
    overlong: Overlong = Field("drop", description="longer examples: drop, or truncate the response, keeping its end")
    train_on_prompt: bool = Field(default=False, description="whether prompt tokens are trainable too")
    batching: Batching = Field("padding-free", description="padding-free, padded or packed batches")
    validation: float = Field(0.0, ge=0, lt=1, description="fraction of examples held out for the validation loss")
    pad_vocab_to: int = Field(0, ge=0, description="multiple that the embeddings are enlarged to; 0 keeps their size")

    lora_r: int = Field(8, ge=1, description="LoRA rank")
    lora_alpha: int = Field(16, ge=1, description="LoRA alpha; the update is scaled by alpha / rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="LoRA dropout")
    lora_targets: str | list[str] = Field("all-linear", description="modules with LoRA matrices")

    precision: Precision = Field("auto", description="bf16, fp32 or auto: bf16 on GPUs, fp32 on CPUs")
    gradient_checkpointing: bool | None = Field(
        None, description="whether activations are recomputed in the backward pass; by default on GPUs only"
    )
    fsdp: bool = Field(default=False, description="whether FSDP2 shards weights, gradients and optimizer states")
    seed: int = Field(0, ge=0, description="random seed of initialisation, shuffling and dropout")

    max_dropped: float = Field(0.2, ge=0, le=1, description="maximum fraction of samples that may be dropped")
    save_steps: int = Field(0, ge=0, description="optimizer steps between checkpoints; 0 saves one per epoch")
    keep_checkpoints: int = Field(2, ge=2, description="number of checkpoints to keep")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.global_batch_size is not None and self.global_batch_size % self.batch_size:
            message = f"global_batch_size {self.global_batch_size} is not a multiple of batch_size {self.batch_size}"
            raise ValueError(message)
        if self.fsdp and self.method == "qlora":
            message = "fsdp cannot shard a 4-bit base model; leave it out with qlora (each device has the whole model)"
            raise ValueError(message)
        if self.fsdp and self.pad_vocab_to:
            message = "fsdp: the embeddings of a sharded model cannot be enlarged; leave pad_vocab_to out"
            raise ValueError(message)
        return self

    def accumulation(self, devices: int) -> int:
        """Return the forward passes per device in one optimizer step.

        Raises:
            UsageError: `global_batch_size` is not a multiple of `batch_size` times `devices`.
        """
        if self.global_batch_size is None:
            return self.gradient_accumulation
        at_once = self.batch_size * devices
        if self.global_batch_size % at_once:
            message = (
                f"--global-batch-size {self.global_batch_size}: not a multiple of --batch-size {self.batch_size} x "
                f"{devices} devices"
            )
            raise UsageError(message)
        return self.global_batch_size // at_once


def load_train_settings(preset: str | None, config_file: Path | None, flags: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a preset, overridden by a YAML file and by flags.

    Raises:
        UsageError: the preset does not exist, or a key or value is invalid.
    """
    return load_settings(TrainSettings, config_file, flags, base=read_preset(preset) if preset else {})


def read_preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset.

    Raises:
        UsageError: there is no preset of that name.
    """
    if name not in PRESETS:
        message = f"--preset {name}: no such preset; use one of {', '.join(PRESETS)}"
        raise UsageError(message)
    path = files("selfinstruct_local.train") / "presets" / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
