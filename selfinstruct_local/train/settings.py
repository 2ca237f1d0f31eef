"""Settings of `selfinstruct train`: defaults, then a preset, then a YAML file, then the command line.

Leans on `config.py`, which merges and checks them; torch is not needed.
"""

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
    """All settings of a training; what stands here shapes the model, but for the last group."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: Method = Field("lora", description="lora, qlora (LoRA over a base of 4 bits) or full")
    epochs: float = Field(3.0, gt=0, description="passes over the data")
    max_steps: int = Field(-1, ge=-1, description="optimizer steps to stop at; -1 goes by epochs")
    batch_size: int = Field(4, ge=1, description="examples in a forward pass of one device")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes in an optimizer step")
    global_batch_size: int | None = Field(
        None, ge=1, description="examples in an optimizer step over all devices; sets gradient_accumulation"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the rate falls")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 leaves them")

    template: TemplateName = Field("alpaca", description="alpaca, byte for byte as published, or the model's own chat")
    max_length: int = Field(512, ge=16, description="tokens of an example")
    overlong: Overlong = Field("drop", description="longer examples: drop, or truncate the response and keep its end")
    train_on_prompt: bool = Field(default=False, description="put the loss on the prompt too")
    batching: Batching = Field("padding-free", description="how examples share a forward pass")
    validation: float = Field(0.0, ge=0, lt=1, description="share of the examples that is held out for the loss")
    pad_vocab_to: int = Field(0, ge=0, description="enlarge the embeddings to a multiple of this; 0 leaves them")

    lora_r: int = Field(8, ge=1, description="rank of the LoRA matrices")
    lora_alpha: int = Field(16, ge=1, description="scale of the LoRA update, over the rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the LoRA path")
    lora_targets: str | list[str] = Field("all-linear", description="modules that get LoRA matrices")

    precision: Precision = Field("auto", description="auto is bf16 on a GPU, fp32 on a CPU")
    gradient_checkpointing: bool | None = Field(
        None, description="compute activations anew in the backward pass; left out, on a GPU only"
    )
    fsdp: bool = Field(default=False, description="shard weights, gradients and optimizer over the devices (FSDP2)")
    seed: int = Field(0, ge=0, description="of initialisation, shuffling and dropout")

    max_dropped: float = Field(0.2, ge=0, le=1, description="share of the cases that may be dropped")
    save_steps: int = Field(0, ge=0, description="steps between checkpoints; 0 saves at the end of each epoch")
    keep_checkpoints: int = Field(2, ge=2, description="checkpoints that are kept")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.global_batch_size is not None and self.global_batch_size % self.batch_size:
            message = f"global_batch_size {self.global_batch_size} is no multiple of batch_size {self.batch_size}"
            raise ValueError(message)
        if self.fsdp and self.method == "qlora":
            message = "fsdp does not divide a base of 4 bits; with qlora leave it out, each device holds the whole base"
            raise ValueError(message)
        if self.fsdp and self.pad_vocab_to:
            message = "fsdp: the embeddings of a sharded model cannot be enlarged; leave pad_vocab_to out"
            raise ValueError(message)
        return self

    def accumulation(self, devices: int) -> int:
        """Forward passes of each device in an optimizer step.

        Raises:
            UsageError: the global batch does not divide by what the devices take at once.
        """
        if self.global_batch_size is None:
            return self.gradient_accumulation
        at_once = self.batch_size * devices
        if self.global_batch_size % at_once:
            message = (
                f"--global-batch-size {self.global_batch_size}: no multiple of --batch-size {self.batch_size} x "
                f"{devices} devices"
            )
            raise UsageError(message)
        return self.global_batch_size // at_once


def load_train_settings(preset: str | None, config_file: Path | None, flags: Mapping[str, Any]) -> TrainSettings:
    """The settings of a preset with those of a file and of the flags over them.

    Raises:
        UsageError: there is no such preset, or a key or value will not do.
    """
    return load_settings(TrainSettings, config_file, flags, base=read_preset(preset) if preset else {})


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PRESETS:
        message = f"--preset {name}: no such preset; there are {', '.join(PRESETS)}"
        raise UsageError(message)
    path = files("selfinstruct_local.train") / "presets" / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
