"""Training plans: parameters, steps, memory per device, and changes that would make a training fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from selfinstruct_local.errors import UsageError
from selfinstruct_local.train.memory import (
    GIB,
    RESERVE_BYTES,
    RESERVE_SHARE,
    MemoryEstimate,
    TokenLengths,
    estimate_memory,
)
from selfinstruct_local.train.network_size import NetworkSize, describe_lora, size_of
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CARDS = (24, 40, 80)  # GiB, common GPU memory sizes
CHECKPOINT: Mapping[str, Any] = {"gradient_checkpointing": True}


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that makes a training fit a GPU that is too small for it otherwise.

    Attributes:
        card: GiB of memory per device.
        flags: flags to add to the command line.
        settings: settings with the change.
        devices: number of devices.
        memory: memory estimate with the change.
    """

    card: int
    flags: str
    settings: TrainSettings
    devices: int
    memory: MemoryEstimate


@dataclass(frozen=True, slots=True)
class Plan:
    """Cost of a training.

    Attributes:
        parameters: number of all parameters, including LoRA matrices.
        trainable: number of trainable parameters.
        devices: number of devices.
        steps_per_epoch: optimizer steps per epoch.
        steps: total optimizer steps.
        tokens: total tokens, without padding.
        memory: peak memory per device; if `unsized`, the memory at the optimizer's step.
        unsized: the architecture, if its activations are not known and the peak exceeds `memory`; else empty.
        lora: line that names the layers with LoRA matrices; empty in full fine-tuning.
        fits: sizes of `CARDS` in GiB that the training fits; empty on a CPU.
        advice: the cheapest change for each other size, if there is one.
        on_gpu: whether the plan is for GPUs.
    """

    parameters: int
    trainable: int
    devices: int
    steps_per_epoch: int
    steps: int
    tokens: int
    memory: MemoryEstimate
    unsized: str
    lora: str
    fits: tuple[int, ...]
    advice: tuple[Advice, ...]
    on_gpu: bool

    @property
    def share(self) -> float:
        """Fraction of parameters that are trainable."""
        return self.trainable / self.parameters


def make_plan(
    config: "PretrainedConfig",
    settings: TrainSettings,
    *,
    tokens_per_example: Sequence[int] | None,
    supervised_tokens: Sequence[int] | None,
    examples: int,
    devices: int,
    on_gpu: bool = True,
) -> Plan:
    """Return the plan of a training.

    Args:
        config: config of the base model.
        settings: settings of the training; on a GPU, `precision: auto` is bf16 and gradient checkpointing is on unless
            set.
        tokens_per_example: (examples,), tokens per example; None takes `max_length` for each.
        supervised_tokens: (examples,), trainable tokens per example; None takes all tokens.
        examples: number of training examples, without those held out.
        devices: number of processes, each with one device.
        on_gpu: whether to plan for GPUs; False plans for a CPU.

    Raises:
        UsageError: there are no examples, or the global batch is not divisible over the devices; also as `size_of`.
        ValueError: the length of a sequence is not `examples`.
    """
    if examples < 1:
        message = "--data: no example is left to train on"
        raise UsageError(message)
    data = TokenLengths.of(tokens_per_example, supervised_tokens, examples, settings)
    network = size_of(config, settings)
    memory = estimate_memory(network, settings, data, devices, on_gpu=on_gpu)
    rows = ceil(sum(data.tokens) / settings.max_length) if settings.batching == "packed" else examples
    # Same count as Trainer.set_initial_training_values: accelerate distributes the batches over the processes.
    passes = ceil(ceil(rows / settings.batch_size) / devices)
    steps_per_epoch = ceil(passes / settings.accumulation(devices))
    steps = settings.max_steps if settings.max_steps > 0 else ceil(settings.epochs * steps_per_epoch)
    unsized = "" if isinstance(network, NetworkSize) else network.architecture
    judged = CARDS if on_gpu and not unsized else ()
    fits = tuple(card for card in judged if memory.fits(card))
    advice = _advise(config, settings, data, devices, [card for card in judged if card not in fits])
    return Plan(
        parameters=network.parameters,
        trainable=network.trainable,
        devices=devices,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        tokens=round(sum(data.tokens) * steps / steps_per_epoch),
        memory=memory,
        unsized=unsized,
        lora=describe_lora(network, settings),
        fits=fits,
        advice=advice,
        on_gpu=on_gpu,
    )


def describe(plan: Plan) -> list[str]:
    """Return the plan as lines for the terminal."""
    lines = [f"parameters   {plan.parameters:,}", f"trainable    {plan.trainable:,} ({plan.share:.2%})"]
    if plan.lora:
        lines.append(plan.lora)
    lines += [f"steps        {plan.steps:,} ({plan.steps_per_epoch:,} per epoch)", f"tokens       {plan.tokens:,}"]
    lines += _describe_memory(plan)
    for advice in plan.advice:
        total = advice.memory.total / GIB
        lines.append(f"to fit {advice.card} GiB: {advice.flags} (needs {total:.1f} GiB)")
    return lines


def _describe_memory(plan: Plan) -> list[str]:
    where = "the device" if plan.devices == 1 else f"each of {plan.devices} devices"
    if plan.unsized:
        told = (
            f"memory       no plan for {plan.unsized}: {where} needs {plan.memory.total / GIB:.2f} GiB for weights, "
            "gradients and optimizer states, and more for activations"
        )
        return [told]
    lines = [f"memory       peak of {where}, {plan.memory.moment}:"]
    parts = ("weights", "gradients", "optimizer", "activations", "working", "total")
    lines += [f"  {part:<12}{getattr(plan.memory, part) / GIB:>8.2f} GiB" for part in parts]
    if plan.on_gpu:
        fits = "  ".join(f"{card} GiB {'fits' if card in plan.fits else 'too small'}" for card in CARDS)
        lines.append(f"GPUs         {fits}  ({RESERVE_BYTES // GIB} GiB and {RESERVE_SHARE:.0%} of a GPU kept free)")
    return lines


def _advise(
    config: "PretrainedConfig", settings: TrainSettings, data: TokenLengths, devices: int, cards: Sequence[int]
) -> tuple[Advice, ...]:
    """Return the cheapest change that fits each size in `cards` (GiB); sizes that no change fits are left out."""
    found: list[Advice] = []
    for changes, processes in _changes(settings, devices):
        missing = [card for card in cards if card not in {each.card for each in found}]
        if not missing:
            break
        try:
            changed = TrainSettings.model_validate({**settings.model_dump(), **changes})
            memory = estimate_memory(size_of(config, changed), changed, data, processes, on_gpu=True)
        except (ValidationError, UsageError):
            continue  # the batch is not divisible that way, or the model has no such layers for LoRA
        flags = " ".join(_flag(name, value) for name, value in changes.items())
        if processes != devices:
            flags = f"{flags} --nproc {processes}".strip()
        found.extend(Advice(card, flags, changed, processes, memory) for card in missing if memory.fits(card))
    return tuple(sorted(found, key=lambda each: each.card))


def _changes(settings: TrainSettings, devices: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (changed settings, devices): first changes that only cost time, then more devices, then other methods."""
    recompute: dict[str, Any] = {} if settings.gradient_checkpointing in {None, True} else dict(CHECKPOINT)
    if recompute:
        yield recompute, devices
    smaller = [settings.batch_size >> shift for shift in range(1, settings.batch_size.bit_length())]
    for size in smaller:
        # The number of examples per step stays the same.
        batch: dict[str, Any] = {"batch_size": size}
        if settings.global_batch_size is None:
            batch["gradient_accumulation"] = settings.gradient_accumulation * ceil(settings.batch_size / size)
        recompute = {**recompute, **batch}
        yield batch, devices
        if recompute != batch:
            yield recompute, devices
    if settings.method != "qlora":
        shard: dict[str, Any] = {} if settings.fsdp else {"fsdp": True}
        for processes in (2, 4, 8):
            if processes > devices:
                yield shard, processes
                yield {**recompute, **shard}, processes
    for method in {"full": ("lora", "qlora"), "lora": ("qlora",)}.get(settings.method, ()):
        yield {"method": method}, devices
        yield {"method": method, **recompute}, devices


def _flag(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    return flag if value is True else f"{flag} {value}"
