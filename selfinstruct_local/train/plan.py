"""Says before a training what it will take: parameters, steps, the memory of one device, and what would make it fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from selfinstruct_local.errors import UsageError
from selfinstruct_local.train.memory import GIB, RESERVE_BYTES, RESERVE_SHARE, Lengths, MemoryEstimate, estimate_memory
from selfinstruct_local.train.network_size import NetworkSize, describe_lora, size_of
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CARDS = (24, 40, 80)  # GiB, as cards are sold
CHECKPOINT: Mapping[str, Any] = {"gradient_checkpointing": True}


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that makes a plan fit a card it does not fit.

    Attributes:
        card: GiB of each device.
        flags: what to add to the command line.
        settings: with the change made.
        devices: how many.
        memory: what it takes then.
    """

    card: int
    flags: str
    settings: TrainSettings
    devices: int
    memory: MemoryEstimate


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training will take.

    Attributes:
        parameters: all, with LoRA matrices.
        trainable: those that learn.
        devices: how many share the work.
        steps_per_epoch: optimizer steps in a pass over the data.
        steps: optimizer steps in all.
        tokens: in all, without padding.
        memory: of one device, at its peak; where `unsized`, at the optimizer's step.
        unsized: architecture whose activations are not known, so that more is taken than `memory` says; else empty.
        lora: which layers get LoRA matrices, in words; empty where all learns.
        fits: GiB of the cards that hold it, of `CARDS`; empty on a CPU.
        advice: for each of the others the cheapest change that helps, where there is one.
        on_gpu: whether it is planned for GPUs.
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
        """Trainable parameters over all."""
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
    """Plans a training.

    Args:
        config: of the base model.
        settings: of the training; on a GPU `precision: auto` is bf16 and checkpointing is on where it is left open.
        tokens_per_example: (examples,) tokens of each; None takes `max_length` for each.
        supervised_tokens: (examples,) how many of them carry loss; None takes all.
        examples: that are trained on, without those held out.
        devices: processes, with a device each.
        on_gpu: False plans for a CPU.

    Raises:
        UsageError: there is no example, the batch does not divide by the devices, or see `size_of`.
        ValueError: a sequence has another length than `examples`.
    """
    if examples < 1:
        message = "--data: no example is left to train on"
        raise UsageError(message)
    data = Lengths.of(tokens_per_example, supervised_tokens, examples, settings)
    network = size_of(config, settings)
    memory = estimate_memory(network, settings, data, devices, on_gpu=on_gpu)
    rows = ceil(sum(data.tokens) / settings.max_length) if settings.batching == "packed" else examples
    # As Trainer.set_initial_training_values counts: batches, of which accelerate gives each process its share.
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
    """The lines that a terminal shows."""
    lines = [f"parameters   {plan.parameters:,}", f"trainable    {plan.trainable:,} ({plan.share:.2%})"]
    if plan.lora:
        lines.append(plan.lora)
    lines += [f"steps        {plan.steps:,} ({plan.steps_per_epoch:,} an epoch)", f"tokens       {plan.tokens:,}"]
    lines += _describe_memory(plan)
    for advice in plan.advice:
        total = advice.memory.total / GIB
        lines.append(f"to fit {advice.card} GiB: {advice.flags} (takes {total:.1f} GiB)")
    return lines


def _describe_memory(plan: Plan) -> list[str]:
    where = "the device" if plan.devices == 1 else f"each of {plan.devices} devices"
    if plan.unsized:
        told = (
            f"memory       no plan for {plan.unsized}: {where} takes {plan.memory.total / GIB:.2f} GiB for weights, "
            "gradients and optimizer states, and more for activations"
        )
        return [told]
    lines = [f"memory       of {where} at its peak, {plan.memory.moment}:"]
    parts = ("weights", "gradients", "optimizer", "activations", "working", "total")
    lines += [f"  {part:<12}{getattr(plan.memory, part) / GIB:>8.2f} GiB" for part in parts]
    if plan.on_gpu:
        fits = "  ".join(f"{card} GiB {'fits' if card in plan.fits else 'does not fit'}" for card in CARDS)
        lines.append(f"cards        {fits}  ({RESERVE_BYTES // GIB} GiB and {RESERVE_SHARE:.0%} of a card kept free)")
    return lines


def _advise(
    config: "PretrainedConfig", settings: TrainSettings, data: Lengths, devices: int, cards: Sequence[int]
) -> tuple[Advice, ...]:
    """The first of the changes, cheapest first, that fits each card; a card for which none does is left out."""
    found: list[Advice] = []
    for changes, processes in _changes(settings, devices):
        missing = [card for card in cards if card not in {each.card for each in found}]
        if not missing:
            break
        try:
            changed = TrainSettings.model_validate({**settings.model_dump(), **changes})
            memory = estimate_memory(size_of(config, changed), changed, data, processes, on_gpu=True)
        except (ValidationError, UsageError):
            continue  # the batch does not divide so, or the model has no such layers for LoRA
        flags = " ".join(_flag(name, value) for name, value in changes.items())
        if processes != devices:
            flags = f"{flags} --nproc {processes}".strip()
        found.extend(Advice(card, flags, changed, processes, memory) for card in missing if memory.fits(card))
    return tuple(sorted(found, key=lambda each: each.card))


def _changes(settings: TrainSettings, devices: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Changes to settings, and how many devices: first those that only take time, then devices, then methods."""
    recompute: dict[str, Any] = {} if settings.gradient_checkpointing in {None, True} else dict(CHECKPOINT)
    if recompute:
        yield recompute, devices
    smaller = [settings.batch_size >> shift for shift in range(1, settings.batch_size.bit_length())]
    for size in smaller:
        # The step stays over as many examples.
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
