"""The memory of one device in a training step, part by part, at the moment that takes the most.

Worked out from what the installed libraries keep at each moment; every term names its reason, and nothing is fitted to
a measurement.

What weights are in (network.py, transformers 5, PEFT 0.2x, torch 2):

- What is trained is float32, and so are its gradients and the two states of AdamW, in bf16 trainings too: 16 bytes a
  parameter. A model that is tuned in full is loaded so, and PEFT makes LoRA matrices so (`autocast_adapter_dtype`).
- On one device autocast makes bf16 copies of such weights as they are used; FSDP2 gathers them in bf16.
- FSDP2 divides the weights, and with them gradients and states; LoRA matrices come after it and are whole everywhere.
- A frozen base is in the precision of the computation. Of a 4-bit base `peft.prepare_model_for_kbit_training` makes
  embeddings, norms and head float32.
- Trainer's AdamW is `adamw_torch_fused`, which needs no temporary tensors.

Not counted: interpreter and libraries, checkpoints as they are written, and memory that an allocator keeps. On a CPU
glibc keeps freed blocks of less than 32 MiB: models of 40M parameters took 844 MiB instead of 687 (full) and 652
instead of 466 (LoRA).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from selfinstruct_local.train.network_size import Counts, NetworkSize
from selfinstruct_local.train.settings import TrainSettings

GIB = 1 << 30
FLOAT32 = 4  # bytes
# Kept free on a card, an assumption: 1 GiB for the CUDA context, cuBLAS and NCCL, and one part in 20 for what the
# driver holds back and for the allocator's rounding and fragments.
RESERVE_BYTES, RESERVE_SHARE = GIB, 0.05
# NF4 with a block of 64 and double quantisation: 4 bits, and 8/64 + 32/(64 * 256) = 0.127 bits of constants
# (Dettmers et al. 2023, section 3).
NF4_BYTES = 0.5 + 0.127 / 8


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
class Lengths:
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
    ) -> "Lengths":
        """Of `examples` examples; lengths that are not known are taken to be the longest.

        Raises:
            ValueError: a sequence has another length than `examples`.
        """
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
    def of(cls, data: Lengths, settings: TrainSettings) -> "_Batch":
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
        cls, net: NetworkSize, batch: _Batch, settings: TrainSettings, precision: _Precision, *, on_gpu: bool
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
    net: NetworkSize, tokens: int, settings: TrainSettings, compute: int, *, on_gpu: bool
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


def estimate_memory(
    net: Counts, settings: TrainSettings, data: Lengths, devices: int, *, on_gpu: bool
) -> MemoryEstimate:
    """The moment of a step, other than the first, that takes the most; the first has no optimizer states yet.

    What a decoder layer keeps is known of LLaMA's. Of any other network the moment of the optimizer's step is given: a
    training takes more than that.
    """
    if not isinstance(net, NetworkSize):
        return _at_optimizer(net, settings, devices, on_gpu=on_gpu)
    return max(_moments(net, settings, data, devices, on_gpu=on_gpu), key=lambda each: each.total)


def _moments(
    net: NetworkSize, settings: TrainSettings, data: Lengths, devices: int, *, on_gpu: bool
) -> Iterator[MemoryEstimate]:
    """Memory at each moment that can be the peak.

    In a backward pass activations go and gradients come, layer by layer and evenly, so the peak is at one of its ends.
    """
    precision = _Precision.of(settings, on_gpu=on_gpu)
    kept = _Activations.of(net, _Batch.of(data, settings), settings, precision, on_gpu=on_gpu)
    shards = devices if settings.fsdp else 1
    weights = _weights(net, settings, precision, shards)
    learning_shards = shards if settings.method == "full" else 1
    learning = net.trainable * FLOAT32 // learning_shards
    passes, always = _working(net, settings, precision), _buckets(net, settings, devices)

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

    def at(moment: str, learned: int, newest: int, activations: int, more: int) -> MemoryEstimate:
        """`learned` parameters have their gradient by now in the first pass of a step; `newest` is the last of them.

        In later passes there are all, and the newest is made beside them and added (FSDP's is in `passes`).
        """
        gradients, beside = learned * FLOAT32 // learning_shards, 0
        if accumulates:
            gradients, beside = learning, 0 if learning_shards > 1 else newest * FLOAT32
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
    yield _at_optimizer(net, settings, devices, on_gpu=on_gpu)


def _at_optimizer(net: Counts, settings: TrainSettings, devices: int, *, on_gpu: bool) -> MemoryEstimate:
    """Weights, gradients and states: no activations stand at that moment, so it is the same for every build."""
    shards = devices if settings.fsdp else 1
    learning = net.trainable * FLOAT32 // (shards if settings.method == "full" else 1)
    weights = _weights(net, settings, _Precision.of(settings, on_gpu=on_gpu), shards)
    return MemoryEstimate(
        weights, learning, 2 * learning, 0, _buckets(net, settings, devices), "at the optimizer's step"
    )


def _copies(net: NetworkSize, settings: TrainSettings, precision: _Precision) -> tuple[int, int]:
    """Bytes of the copies that autocast makes of the float32 weights of a decoder layer and of the head."""
    if precision.compute == FLOAT32 or settings.fsdp:
        return 0, 0
    learning = net.linear // net.layers if settings.method == "full" else net.layer_trainable
    return learning * precision.compute, net.head * precision.compute if precision.copies else 0


def _weights(net: Counts, settings: TrainSettings, precision: _Precision, shards: int) -> int:
    """Bytes of the weights on one device."""
    frozen = net.parameters - net.trainable
    if settings.method == "full":
        return net.parameters * FLOAT32 // shards
    if settings.method == "lora":
        return frozen * precision.compute // shards + net.trainable * FLOAT32
    return round(net.linear * NF4_BYTES) + (frozen - net.linear + net.trainable) * FLOAT32


def _working(net: NetworkSize, settings: TrainSettings, precision: _Precision) -> int:
    """Bytes of temporaries in forward and backward passes."""
    passes = 0
    if settings.method == "qlora":
        passes += net.largest_linear * precision.compute  # bitsandbytes makes a layer's weights whole to multiply
    if settings.fsdp:
        # A decoder layer is a unit, the embeddings and the head are others. Gathered stand the unit that runs and the
        # next (prefetched); of a backward pass the unit's gradients, and their copy to be reduced.
        learns = (
            max(net.layer_trainable, net.head_trainable, net.embedding_trainable) if settings.method == "full" else 0
        )
        passes += 2 * (max(net.head, net.layer) + learns) * precision.compute
    return passes


def _buckets(net: Counts, settings: TrainSettings, devices: int) -> int:
    """Bytes of DistributedDataParallel's own copies of gradients (gradient_as_bucket_view is off)."""
    return net.trainable * FLOAT32 if devices > 1 and not settings.fsdp else 0
