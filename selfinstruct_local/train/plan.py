"""Says before a training what it will take: parameters, steps, and the memory of one device, part by part.

The network is built on PyTorch's meta device, where tensors have shapes and no bytes, so every count of parameters is
that of transformers and PEFT. Memory is worked out for the moments of a training step that can be its peak, from what
the installed libraries keep at each; every term names its reason, and nothing is fitted to a measurement.

What weights are in (trainer.py, transformers 5, accelerate 1, PEFT 0.2x, torch 2):

- What is trained is float32, and so are its gradients and the two states of AdamW, in bf16 trainings too: 16 bytes a
  parameter. The trainer loads a model that is tuned in full so, PEFT makes LoRA matrices so
  (`autocast_adapter_dtype`), and FSDP2 would (`accelerate.utils.fsdp_utils.fsdp2_prepare_model`).
- On one device autocast makes bf16 copies of such weights as they are used; FSDP2 gathers them in bf16.
- A frozen base is in the precision of the computation. Of a 4-bit base `peft.prepare_model_for_kbit_training` makes
  embeddings, norms and head float32.
- Trainer's AdamW is `adamw_torch_fused`, which needs no temporary tensors.

Not counted: interpreter and libraries, checkpoints as they are written, and memory that an allocator keeps. On a CPU
glibc keeps freed blocks of less than 32 MiB: models of 40M parameters took 844 MiB instead of 687 (full) and 652
instead of 466 (LoRA).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 1 << 30
CARDS = (24, 40, 80)  # GiB, as cards are sold
# Kept free on a card, an assumption: 1 GiB for the CUDA context, cuBLAS and NCCL, and one part in 20 for what the
# driver holds back and for the allocator's rounding and fragments.
RESERVE_BYTES, RESERVE_SHARE = GIB, 0.05
# NF4 with a block of 64 and double quantisation: 4 bits, and 8/64 + 32/(64 * 256) = 0.127 bits of constants
# (Dettmers et al. 2023, section 3).
NF4_BYTES = 0.5 + 0.127 / 8
# Trainer leaves accelerate's `sync_each_batch` off: gradients of the passes of one optimizer step then add up in whole
# (`FSDPModule.set_requires_gradient_sync(False)`) and are divided over the devices with the last pass alone.
SYNC_EACH_BATCH = False
FLOAT32 = 4  # bytes
CHECKPOINT: Mapping[str, Any] = {"gradient_checkpointing": True}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device at the moment of a training step that takes the most.

    Attributes:
        weights: the model's, with LoRA matrices where there are any.
        gradients: those that stand at that moment; before a backward pass there are none unless passes accumulate.
        optimizer: the two states of AdamW of each trainable parameter.
        activations: what autograd keeps of one forward pass, logits and their gradients.
        working: temporary tensors, FSDP's gathered weights, DDP's buckets.
        moment: when that is, in words.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    moment: str

    @property
    def total(self) -> int:
        """Bytes, all parts together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working

    def fits(self, card: int) -> bool:
        """Whether a card of so many GiB holds it with the reserve kept free."""
        return self.total <= card * GIB * (1 - RESERVE_SHARE) - RESERVE_BYTES


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
        memory: of one device, at its peak.
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
    fits: tuple[int, ...]
    advice: tuple[Advice, ...]
    on_gpu: bool

    @property
    def share(self) -> float:
        """Trainable parameters over all."""
        return self.trainable / self.parameters


def llama_7b() -> "PretrainedConfig":
    """The config of LLaMA-7B (Touvron et al. 2023), which is shipped: plans need no download."""
    from transformers import LlamaConfig

    raw = (files("selfinstruct_local.train") / "llama_7b.json").read_bytes()
    return LlamaConfig(**orjson.loads(raw))


def read_config(folder: Path) -> "PretrainedConfig":
    """The config of a local model folder; code in the folder is never run.

    Raises:
        WrongUseError: there is no config, or transformers does not know it, or it is of no LLaMA-like model.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        message = f"--model {folder}: no config.json in there; name the folder of a model"
        raise WrongUseError(message)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        message = f"--model {folder}: config.json cannot be used: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if not isinstance(getattr(config, name, None), int):
            message = f"--model {folder}: config.json has no {name}; plans are for LLaMA-like models"
            raise WrongUseError(message)
    return config


def count_parameters(config: "PretrainedConfig", settings: TrainSettings) -> tuple[int, int]:
    """Parameters in all and those that learn, counted by transformers and PEFT on the meta device.

    Raises:
        WrongUseError: the model has no decoder layers as LLaMA has them, or `lora_targets` name no module of it.
    """
    network = _network(config, settings)
    return network.parameters, network.trainable


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
        WrongUseError: there is no example, the batch does not divide by the devices, or see `count_parameters`.
        ValueError: a sequence has another length than `examples`.
    """
    if examples < 1:
        message = "--data: no example is left to train on"
        raise WrongUseError(message)
    data = _Data.of(tokens_per_example, supervised_tokens, examples, settings)
    network = _network(config, settings)
    memory = _peak(network, settings, data, devices, on_gpu=on_gpu)
    rows = ceil(sum(data.tokens) / settings.max_length) if settings.batching == "packed" else examples
    # As Trainer.set_initial_training_values counts: batches, of which accelerate gives each process its share.
    passes = ceil(ceil(rows / settings.batch_size) / devices)
    steps_per_epoch = ceil(passes / settings.accumulation(devices))
    steps = settings.max_steps if settings.max_steps > 0 else ceil(settings.epochs * steps_per_epoch)
    fits = tuple(card for card in CARDS if on_gpu and memory.fits(card))
    advice = _advise(config, settings, data, devices, [card for card in CARDS if card not in fits]) if on_gpu else ()
    return Plan(
        parameters=network.parameters,
        trainable=network.trainable,
        devices=devices,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        tokens=round(sum(data.tokens) * steps / steps_per_epoch),
        memory=memory,
        fits=fits,
        advice=advice,
        on_gpu=on_gpu,
    )


def describe(plan: Plan) -> list[str]:
    """The lines that a terminal shows."""
    where = "the device" if plan.devices == 1 else f"each of {plan.devices} devices"
    lines = [
        f"parameters   {plan.parameters:,}",
        f"trainable    {plan.trainable:,} ({plan.share:.2%})",
        f"steps        {plan.steps:,} ({plan.steps_per_epoch:,} an epoch)",
        f"tokens       {plan.tokens:,}",
        f"memory       of {where} at its peak, {plan.memory.moment}:",
    ]
    parts = ("weights", "gradients", "optimizer", "activations", "working", "total")
    lines.extend(f"  {part:<12}{getattr(plan.memory, part) / GIB:>8.2f} GiB" for part in parts)
    if plan.on_gpu:
        fits = "  ".join(f"{card} GiB {'fits' if card in plan.fits else 'does not fit'}" for card in CARDS)
        lines.append(f"cards        {fits}  ({RESERVE_BYTES // GIB} GiB and {RESERVE_SHARE:.0%} of a card kept free)")
    for advice in plan.advice:
        total = advice.memory.total / GIB
        lines.append(f"to fit {advice.card} GiB: {advice.flags} (takes {total:.1f} GiB)")
    return lines


@dataclass(frozen=True, slots=True)
class _Data:
    """Lengths of the examples. `tokens` and `supervised` are (examples,), counted in tokens."""

    tokens: Sequence[int]
    supervised: Sequence[int]

    @classmethod
    def of(
        cls,
        tokens: Sequence[int] | None,
        supervised: Sequence[int] | None,
        examples: int,
        settings: TrainSettings,
    ) -> "_Data":
        every = [settings.max_length] * examples if tokens is None else tokens
        loss = every if supervised is None else supervised
        if not len(every) == len(loss) == examples:
            message = f"{len(every)} lengths and {len(loss)} supervised lengths for {examples} examples"
            raise ValueError(message)
        return cls(every, loss)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The largest forward pass of one device that shuffling can bring.

    Attributes:
        tokens: T, with padding.
        supervised: S, positions that go through the head.
        mask: elements of the attention mask; 0 where attention is causal over a whole row and needs none.
    """

    tokens: int
    supervised: int
    mask: int

    @classmethod
    def of(cls, data: _Data, settings: TrainSettings) -> "_Batch":
        size = min(settings.batch_size, len(data.tokens))
        if settings.batching == "packed":
            # Full rows, concatenated as examples are, with the loss on the share that it has of all tokens.
            rows = min(settings.batch_size, ceil(sum(data.tokens) / settings.max_length))
            tokens = rows * settings.max_length
            supervised = ceil(tokens * sum(data.supervised) / sum(data.tokens))
            return cls(tokens, supervised, tokens * tokens)
        longest = sorted(data.tokens)[-size:]
        supervised = sum(sorted(data.supervised)[-size:])
        if settings.batching == "padded":
            tokens = size * longest[-1]
            return cls(tokens, tokens, tokens * longest[-1] if size > 1 else 0)
        tokens = sum(longest)
        return cls(tokens, supervised, tokens * tokens if size > 1 else 0)


@dataclass(frozen=True, slots=True)
class _Network:
    """Sizes of a network. All counts are of parameters.

    Attributes:
        layers: how many decoder layers.
        hidden: H, width of the residual stream.
        inner: I, width of the MLP.
        query: Q, heads times their width.
        key: K, the same of keys.
        heads: of the queries.
        vocabulary: V.
        parameters: all.
        trainable: all that learn.
        linear: in the base's linear layers without the head, which QLoRA makes 4-bit.
        layer, layer_trainable: of one decoder layer.
        down_trainable: of its last projection.
        largest_linear: of the layer's projections.
        head, head_trainable: of the output head; tied embeddings count here.
        embedding_trainable: of the input embeddings; 0 where they are tied.
        tied: the head's weights are the embeddings'.
        norms_learn: norms learn their weights.
        lora: (input, width of the input) of each projection of a layer that has LoRA matrices.
        lora_r: their rank.
    """

    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    heads: int
    vocabulary: int
    parameters: int
    trainable: int
    linear: int
    layer: int
    layer_trainable: int
    down_trainable: int
    largest_linear: int
    head: int
    head_trainable: int
    embedding_trainable: int
    tied: bool
    norms_learn: bool
    lora: tuple[tuple[str, int], ...]
    lora_r: int


# Projections that read one and the same tensor.
_INPUT_OF = {
    "q_proj": "attention input",
    "k_proj": "attention input",
    "v_proj": "attention input",
    "o_proj": "attention output",
    "gate_proj": "mlp input",
    "up_proj": "mlp input",
    "down_proj": "mlp product",
}


def _network(config: "PretrainedConfig", settings: TrainSettings) -> _Network:
    targets = settings.lora_targets
    kind: Any = type(config)
    return _build(
        config.to_json_string(use_diff=False),
        kind,
        settings.pad_vocab_to,
        settings.lora_r if settings.method != "full" else 0,
        targets if isinstance(targets, str) else tuple(targets),
    )


@lru_cache(maxsize=16)
def _build(
    config_json: str, config_class: Any, pad_vocab_to: int, lora_r: int, targets: str | tuple[str, ...]
) -> _Network:
    """Builds the network on the meta device and counts; a 7B takes a second, hence the cache."""
    import torch
    from transformers import AutoModelForCausalLM

    config = config_class.from_dict(orjson.loads(config_json))
    factory: Any = AutoModelForCausalLM  # its methods have no types
    if pad_vocab_to:
        config.vocab_size = ceil(config.vocab_size / pad_vocab_to) * pad_vocab_to
    try:
        with torch.device("meta"):
            model = factory.from_config(config)
    except ValueError as error:
        message = f"--model: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not layers or not hasattr(layers[0], "mlp") or not hasattr(layers[0].mlp, "down_proj"):
        message = f"--model: {type(model).__name__} has no decoder layers as LLaMA has them; plans are for such models"
        raise WrongUseError(message)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    base_layer = _count(layers[0])
    linears = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    sizes = [_count(module) for module in linears]
    if lora_r:
        model = _with_lora(model, lora_r, targets)
        layers = model.get_base_model().model.layers
    with_matrices = [
        (name.rsplit(".", 1)[-1], module) for name, module in layers[0].named_modules() if hasattr(module, "lora_A")
    ]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads
    return _Network(
        layers=len(layers),
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        query=heads * width,
        key=(getattr(config, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        vocabulary=config.vocab_size,
        parameters=_count(model),
        trainable=_count(model, trainable=True),
        linear=sum(sizes),
        layer=base_layer,
        layer_trainable=_count(layers[0], trainable=True),
        down_trainable=_count(layers[0].mlp.down_proj, trainable=True),
        largest_linear=max(sizes),
        head=head.numel(),
        head_trainable=head.numel() if head.requires_grad else 0,
        embedding_trainable=embedding.numel() if embedding.requires_grad and embedding is not head else 0,
        tied=embedding is head,
        norms_learn=layers[0].input_layernorm.weight.requires_grad,
        lora=tuple((_INPUT_OF.get(name, name), module.in_features) for name, module in with_matrices),
        lora_r=lora_r,
    )


def _with_lora(model: Any, rank: int, targets: str | tuple[str, ...]) -> Any:
    from peft import LoraConfig, get_peft_model

    modules = targets if isinstance(targets, str) else list(targets)
    try:
        return get_peft_model(model, LoraConfig(r=rank, target_modules=modules, task_type="CAUSAL_LM"))
    except ValueError as error:
        message = f"--lora-targets {modules}: {str(error).splitlines()[0]}"
        raise WrongUseError(message) from error


def _count(module: Any, *, trainable: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)


@dataclass(frozen=True, slots=True)
class _Precision:
    """Bytes of one number.

    Attributes:
        compute: of matrix products and attention.
        stream: of the residual stream, which has the type of the embeddings.
        inner: of the MLP's states.
    """

    compute: int
    stream: int
    inner: int

    @classmethod
    def of(cls, settings: TrainSettings, *, on_gpu: bool) -> "_Precision":
        half = settings.precision == "bf16" or (settings.precision == "auto" and on_gpu)
        compute = 2 if half else FLOAT32
        # A LoRA base is loaded in the computation's precision, and FSDP2 gathers embeddings in it.
        stream = compute if settings.method == "lora" or settings.fsdp else FLOAT32
        # bitsandbytes' Linear4bit gives back the type that it was given; autocast gives bf16.
        return cls(compute, stream, stream if settings.method == "qlora" else compute)

    @property
    def copies(self) -> bool:
        """Whether autocast copies what linear layers read."""
        return self.stream != self.compute


@dataclass(frozen=True, slots=True)
class _Activations:
    """Bytes that autograd keeps of one forward pass, and the temporaries of a backward pass.

    Attributes:
        layer: kept by a decoder layer between its forward and its backward pass.
        layer_mlp: the part of it that its MLP keeps.
        mlp_backward: what stands in the MLP's part when its backward pass is at its widest.
        stream: one tensor of the residual stream, (T, H).
        outer: kept outside the layers: masks, rotary tables, the last norm, the head's input.
        loss_forward: logits, at the end of the forward pass.
        loss_backward: the same where the backward pass is at its widest.
        logits_gradient: what the head's backward pass reads.
    """

    layer: int
    layer_mlp: int
    mlp_backward: int
    stream: int
    outer: int
    loss_forward: int
    loss_backward: int
    logits_gradient: int

    @classmethod
    def of(
        cls, net: _Network, batch: _Batch, settings: TrainSettings, precision: _Precision, *, on_gpu: bool
    ) -> "_Activations":
        """Counts tensors of T tokens.

        Sources: transformers' modeling_llama, sdpa_attention and loss_utils, PEFT's lora.Linear, PyTorch's
        derivatives.yaml.
        """
        tokens, compute, full = batch.tokens, precision.compute, settings.method == "full"
        stream = tokens * net.hidden * precision.stream
        # LlamaRMSNorm works in float32. Kept: its input, the root (T,), and, if the weight learns, the normed states.
        norm = tokens * (net.hidden + 1) * FLOAT32 + (stream if net.norms_learn else 0)
        # A frozen linear layer keeps nothing; one that learns keeps its input, once for q, k and v and once for gate
        # and up, or a copy for each of the five. SDPA keeps its output anyhow, which is the input of o.
        inputs = (5 if precision.copies else 2) * tokens * net.hidden * compute if full else 0
        # SDPA keeps queries, keys, values, its output, and the log-sum of each row and head in float32. With a mask
        # the keys and values of grouped heads are repeated before (use_gqa_in_sdpa), and the boolean mask becomes one
        # of numbers, anew in each layer.
        key = net.query if batch.mask else net.key
        attention = tokens * (2 * net.query + 2 * key) * compute + tokens * net.heads * FLOAT32 + batch.mask * compute
        # SiLU keeps its input, the product keeps both factors, and down keeps the product if it learns.
        inner = tokens * net.inner * precision.inner
        lora_attention, lora_mlp_input, lora_product = _lora_keeps(net, tokens, settings, compute, on_gpu=on_gpu)
        mlp = (4 if full else 3) * inner + lora_product
        logits = batch.supervised * net.vocabulary
        return cls(
            layer=2 * norm + inputs + attention + mlp + lora_attention + lora_mlp_input,
            layer_mlp=mlp,
            # At the product's backward: gate, activation, up, and the gradients of product, activation and up.
            mlp_backward=6 * inner,
            stream=stream,
            # The boolean mask; cos and sin (T, head); the last norm; the supervised states that a learning head reads.
            outer=batch.mask
            + 2 * tokens * (net.query // net.heads) * precision.stream
            + norm
            + (batch.supervised * net.hidden * compute if net.head_trainable else 0),
            # Cross entropy is in float32 (ForCausalLMLoss converts the logits): the logits, their float32 copy if they
            # are not in it, and the log-softmax, (S, V) each.
            loss_forward=logits * (2 * FLOAT32 if compute == FLOAT32 else compute + 2 * FLOAT32),
            # The log-softmax, its gradient, and the gradient of the logits.
            loss_backward=logits * 3 * FLOAT32,
            logits_gradient=logits * compute,
        )


def _lora_keeps(
    net: _Network, tokens: int, settings: TrainSettings, compute: int, *, on_gpu: bool
) -> tuple[int, int, int]:
    """Bytes that LoRA's path keeps in attention, at gate and up, and at down.

    A keeps its input and B keeps (T, r). With dropout each projection has an input of its own and keeps the mask too:
    bool on CUDA (native_dropout), float32 on a CPU. In bf16 each has a copy of its own from autocast.
    """
    parts = {"attention": 0, "mlp input": 0, "mlp product": 0}
    seen = {"attention output"}  # SDPA keeps it already
    for read, width in net.lora:
        part = read if read in parts else "attention"
        parts[part] += tokens * net.lora_r * compute
        if settings.lora_dropout:
            parts[part] += tokens * width * (compute + (1 if on_gpu else FLOAT32))
        elif compute != FLOAT32 or read not in seen:
            parts[part] += tokens * width * compute
        seen.add(read)
    return parts["attention"], parts["mlp input"], parts["mlp product"]


def _peak(net: _Network, settings: TrainSettings, data: _Data, devices: int, *, on_gpu: bool) -> MemoryEstimate:
    """The moment of a step, other than the first, that takes the most; the first has no optimizer states yet."""
    return max(_moments(net, settings, data, devices, on_gpu=on_gpu), key=lambda each: each.total)


def _moments(
    net: _Network, settings: TrainSettings, data: _Data, devices: int, *, on_gpu: bool
) -> Iterator[MemoryEstimate]:
    """Memory at each moment that can be the peak.

    In a backward pass activations go and gradients come, layer by layer and evenly, so the peak is at one of its ends.
    """
    precision = _Precision.of(settings, on_gpu=on_gpu)
    kept = _Activations.of(net, _Batch.of(data, settings), settings, precision, on_gpu=on_gpu)
    shards = devices if settings.fsdp else 1
    weights = _weights(net, settings, precision, shards)
    learning = net.trainable * FLOAT32 // shards
    passes, always = _working(net, settings, precision, devices)

    checkpointing = on_gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    # The layer whose backward pass runs: what it kept, with its MLP at its widest, and the gradients of its output and
    # of its MLP's input.
    running = kept.layer + max(0, kept.mlp_backward - kept.layer_mlp) + 2 * kept.stream
    if checkpointing:
        # Kept is the input of each layer; the running one is computed anew, and in float32 its norm keeps that input.
        layer = kept.stream
        running -= kept.stream if precision.stream == FLOAT32 else 0
    else:
        layer = kept.layer
        running -= kept.layer
    layers = net.layers * layer + kept.outer
    # Autocast's copies of weights stand until the forward pass ends (its cache) or, where autograd keeps them, until
    # they are used backward; a checkpointed layer keeps none.
    copy_layer, copy_head = _copies(net, settings, precision)
    copies = net.layers * copy_layer + copy_head
    copies_kept = copy_head if checkpointing else copies

    accumulates = settings.accumulation(devices) > 1
    accumulated = learning
    if settings.fsdp and not SYNC_EACH_BATCH:
        accumulated = max(learning, net.trainable * precision.compute)

    def at(moment: str, learned: int, newest: int, activations: int, more: int) -> MemoryEstimate:
        """`learned` parameters have their gradient by now in the first pass of a step; `newest` is the last of them.

        In later passes there are all, and the newest is made beside them and added (FSDP's is in `passes`).
        """
        gradients, beside = learned * FLOAT32 // shards, 0
        if accumulates:
            gradients, beside = accumulated, 0 if settings.fsdp else newest * FLOAT32
        return MemoryEstimate(weights, gradients, 2 * learning, activations, passes + always + more + beside, moment)

    head, down = net.head_trainable, net.down_trainable
    yield at("at the end of the forward pass", 0, 0, layers + kept.loss_forward, copies)
    yield at("at the loss", 0, 0, layers + kept.loss_backward, copies_kept)
    yield at("behind the head's backward pass", head, head, layers + kept.logits_gradient, copies_kept)
    copies_left = max(copy_layer, copies_kept - copy_head)
    yield at("in the last layer's backward pass", head + down, down, layers + running, copies_left)
    learned = net.trainable - net.embedding_trainable - net.layer_trainable + down
    yield at("in the first layer's backward pass", learned, down, layer + running + kept.outer, copy_layer)
    # Tied embeddings: their gradient is made beside that of the head and added to it.
    newest, twice = (head, head * FLOAT32) if net.tied else (net.embedding_trainable, 0)
    yield at("at the end of the backward pass", net.trainable, newest, 2 * kept.stream, twice)
    yield MemoryEstimate(weights, learning, 2 * learning, 0, always, "at the optimizer's step")


def _copies(net: _Network, settings: TrainSettings, precision: _Precision) -> tuple[int, int]:
    """Bytes of the copies that autocast makes of the float32 weights of a decoder layer and of the head."""
    if precision.compute == FLOAT32 or settings.fsdp:
        return 0, 0
    learning = net.linear // net.layers if settings.method == "full" else net.layer_trainable
    return learning * precision.compute, net.head * precision.compute if precision.copies else 0


def _weights(net: _Network, settings: TrainSettings, precision: _Precision, shards: int) -> int:
    """Bytes of the weights on one device."""
    frozen = net.parameters - net.trainable
    if settings.method != "qlora":
        return (frozen * precision.compute + net.trainable * FLOAT32) // shards
    # FSDP2 leaves the base whole: fsdp2_prepare_model takes weights of 4 bits out of what it divides.
    return round(net.linear * NF4_BYTES) + (frozen - net.linear + net.trainable) * FLOAT32 // shards


def _working(net: _Network, settings: TrainSettings, precision: _Precision, devices: int) -> tuple[int, int]:
    """Bytes of temporaries in forward and backward passes, and of those that always stand."""
    passes = always = 0
    if settings.method == "qlora":
        passes += net.largest_linear * precision.compute  # bitsandbytes makes a layer's weights whole to multiply
    if settings.fsdp:
        # A decoder layer is a unit, the embeddings and the head are others. Gathered stand the unit that runs and the
        # next (prefetched); of a backward pass the unit's gradients, and their copy to be reduced.
        unit = max(net.head, 0 if settings.method == "qlora" else net.layer)
        learns = max(net.layer_trainable, net.head_trainable, net.embedding_trainable)
        passes += 2 * (unit + learns) * precision.compute
    elif devices > 1:
        # DistributedDataParallel reduces gradients in buckets of its own (gradient_as_bucket_view is off).
        always += net.trainable * FLOAT32
    return passes, always


def _advise(
    config: "PretrainedConfig", settings: TrainSettings, data: _Data, devices: int, cards: Sequence[int]
) -> tuple[Advice, ...]:
    """The first of the changes, cheapest first, that fits each card; a card for which none does is left out."""
    found: list[Advice] = []
    for changes, processes in _changes(settings, devices):
        missing = [card for card in cards if card not in {each.card for each in found}]
        if not missing:
            break
        try:
            changed = TrainSettings.model_validate({**settings.model_dump(), **changes})
            changed.accumulation(processes)
        except (ValidationError, WrongUseError):
            continue  # the batch does not divide so
        memory = _peak(_network(config, changed), changed, data, processes, on_gpu=True)
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
