"""Peak memory of one device in a training step, estimated by parts.

The estimate follows from the tensors that the installed libraries keep at each moment. A comment gives the reason for
each term; no term is fitted to a measurement.

Precision of the weights (network.py, transformers 5, PEFT 0.2x, torch 2):

- Trainable parameters, their gradients and AdamW's two states are float32, in bf16 training too: 16 bytes per
  parameter. In full fine-tuning the model is loaded in float32; PEFT creates LoRA matrices in float32
  (`autocast_adapter_dtype`).
- On one device, autocast makes bf16 copies of such weights when they are used; FSDP2 gathers them in bf16.
- FSDP2 shards weights, gradients and optimizer states. LoRA matrices are added afterwards and are replicated.
- A frozen base model has the compute precision. For a 4-bit base model, `peft.prepare_model_for_kbit_training` converts
  embeddings, norms and head to float32.
- The Trainer's AdamW is `adamw_torch_fused`, which needs no temporary tensors.

Not counted: interpreter and libraries, checkpoints during a save, and memory that an allocator caches. On a CPU, glibc
keeps freed blocks smaller than 32 MiB: models with 40M parameters took 844 MiB instead of 687 (full) and 652 instead of
466 (LoRA).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from selfinstruct_local.train.network_size import Counts, NetworkSize
from selfinstruct_local.train.settings import TrainSettings

GIB = 1 << 30
FLOAT32 = 4  # bytes
# Reserved on a GPU (an assumption): 1 GiB for the CUDA context, cuBLAS and NCCL, and 1/20 of the memory for the
# driver's reserve and the allocator's rounding and fragmentation.
RESERVE_BYTES, RESERVE_SHARE = GIB, 0.05
# NF4 with block size 64 and double quantisation: 4 bits, and 8/64 + 32/(64 * 256) = 0.127 bits of constants
# (Dettmers et al. 2023, section 3).
NF4_BYTES = 0.5 + 0.127 / 8


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device at the moment of peak memory in a training step.

    Attributes:
        weights: model weights, including LoRA matrices.
        gradients: gradients allocated at that moment; none before a backward pass, unless gradients accumulate.
        optimizer: AdamW's two states per trainable parameter.
        activations: tensors that autograd saves in one forward pass, logits and their gradients.
        working: temporary tensors, weights gathered by FSDP, DDP buckets.
        moment: description of the moment.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    moment: str

    @property
    def total(self) -> int:
        """Sum of all parts in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.working

    def fits(self, card: int) -> bool:
        """Return whether it fits a GPU with `card` GiB of memory, apart from the reserve."""
        return self.total <= card * GIB * (1 - RESERVE_SHARE) - RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Number of tokens (`tokens`) and of trainable tokens (`supervised`) of each example, both of shape (examples,)."""

    tokens: Sequence[int]
    supervised: Sequence[int]

    @classmethod
    def of(
        cls,
        tokens: Sequence[int] | None,
        supervised: Sequence[int] | None,
        examples: int,
        settings: TrainSettings,
    ) -> "TokenLengths":
        """Return the lengths of `examples` examples; unknown ones (None) are taken as `max_length`.

        Raises:
            ValueError: the length of a sequence is not `examples`.
        """
        every = [settings.max_length] * examples if tokens is None else tokens
        loss = every if supervised is None else supervised
        if not len(every) == len(loss) == examples:
            message = f"{len(every)} lengths and {len(loss)} counts of trainable tokens for {examples} examples"
            raise ValueError(message)
        return cls(every, loss)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The largest forward pass of one device that shuffling can produce.

    Attributes:
        tokens: T, including padding.
        supervised: S, positions that go through the head.
        mask: elements of the attention mask; 0 if attention is causal over a whole row and needs no mask.
    """

    tokens: int
    supervised: int
    mask: int

    @classmethod
    def of(cls, data: TokenLengths, settings: TrainSettings) -> "_Batch":
        size = min(settings.batch_size, len(data.tokens))
        if settings.batching == "packed":
            # Full rows, concatenated like examples; their fraction of trainable tokens is that of all the data.
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
    """Bytes per number.

    Attributes:
        compute: in matrix products and attention.
        stream: in the residual stream, which has the dtype of the embeddings.
        inner: in the MLP's inner states.
    """

    compute: int
    stream: int
    inner: int

    @classmethod
    def of(cls, settings: TrainSettings, *, on_gpu: bool) -> "_Precision":
        half = settings.precision == "bf16" or (settings.precision == "auto" and on_gpu)
        compute = 2 if half else FLOAT32
        # A LoRA base model is loaded in the compute precision, and FSDP2 gathers embeddings in it.
        stream = compute if settings.method == "lora" or settings.fsdp else FLOAT32
        # bitsandbytes' Linear4bit returns the dtype of its input; autocast returns bf16.
        return cls(compute, stream, stream if settings.method == "qlora" else compute)

    @property
    def copies(self) -> bool:
        """Whether autocast copies the inputs of linear layers."""
        return self.stream != self.compute


@dataclass(frozen=True, slots=True)
class _Activations:
    """Bytes that autograd saves in one forward pass, and temporary tensors of a backward pass.

    Attributes:
        layer: saved by a decoder layer between its forward and its backward pass.
        layer_mlp: the MLP's part of `layer`.
        mlp_backward: peak of the MLP's part during its backward pass.
        stream: one tensor of the residual stream, (T, H).
        outer: saved outside the layers: masks, rotary tables, the last norm, the head's input.
        loss_forward: logits and loss at the end of the forward pass.
        loss_backward: logits and loss at the peak of the loss's backward pass.
        logits_gradient: input of the head's backward pass.
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
        """Return the bytes for a batch of T tokens.

        Sources: transformers' modeling_llama, sdpa_attention and loss_utils, PEFT's lora.Linear, PyTorch's
        derivatives.yaml.
        """
        tokens, compute, full = batch.tokens, precision.compute, settings.method == "full"
        stream = tokens * net.hidden * precision.stream
        # LlamaRMSNorm computes in float32. Saved: its input, the root mean square (T,), and, if the weight is
        # trainable, the normalised states.
        norm = tokens * (net.hidden + 1) * FLOAT32 + (stream if net.norms_learn else 0)
        # A frozen linear layer saves nothing; a trainable one saves its input, once for q, k and v and once for gate
        # and up, or one copy for each of the five. SDPA saves its output in any case, which is the input of o.
        inputs = (5 if precision.copies else 2) * tokens * net.hidden * compute if full else 0
        # SDPA saves queries, keys, values, its output, and the log-sum-exp per row and head in float32. With a mask,
        # the keys and values of grouped heads are repeated first (use_gqa_in_sdpa), and each layer converts the
        # boolean mask to its own floating-point mask.
        key = net.query if batch.mask else net.key
        attention = tokens * (2 * net.query + 2 * key) * compute + tokens * net.heads * FLOAT32 + batch.mask * compute
        # SiLU saves its input, the product saves both factors, and down saves the product if it is trainable.
        inner = tokens * net.inner * precision.inner
        lora_attention, lora_mlp_input, lora_product = _lora_keeps(net, tokens, settings, compute, on_gpu=on_gpu)
        mlp = (4 if full else 3) * inner + lora_product
        logits = batch.supervised * net.vocabulary
        return cls(
            layer=2 * norm + inputs + attention + mlp + lora_attention + lora_mlp_input,
            layer_mlp=mlp,
            # In the product's backward pass: gate, activation, up, and the gradients of product, activation and up.
            mlp_backward=6 * inner,
            stream=stream,
            # The boolean mask; cos and sin (T, head); the last norm; the S states that a trainable head reads.
            outer=batch.mask
            + 2 * tokens * (net.query // net.heads) * precision.stream
            + norm
            + (batch.supervised * net.hidden * compute if net.head_trainable else 0),
            # Cross entropy is computed in float32 (ForCausalLMLoss converts the logits): the logits, their float32
            # copy unless they are float32, and the log-softmax, (S, V) each.
            loss_forward=logits * (2 * FLOAT32 if compute == FLOAT32 else compute + 2 * FLOAT32),
            # The log-softmax, its gradient, and the gradient of the logits, all in float32.
            loss_backward=logits * 3 * FLOAT32,
            logits_gradient=logits * compute,
        )


def _lora_keeps(
    net: NetworkSize, tokens: int, settings: TrainSettings, compute: int, *, on_gpu: bool
) -> tuple[int, int, int]:
    """Return the bytes that the LoRA path saves in attention, at gate and up, and at down.

    A saves its input and B saves (T, r). With dropout, each projection has its own input and also saves the dropout
    mask: bool on CUDA (native_dropout), float32 on a CPU. In bf16, autocast makes a copy for each projection.
    """
    parts = {"attention": 0, "mlp input": 0, "mlp product": 0}
    seen = {"attention output"}  # already saved by SDPA
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
    net: Counts, settings: TrainSettings, data: TokenLengths, devices: int, *, on_gpu: bool
) -> MemoryEstimate:
    """Return the peak memory of a step other than the first, which has no optimizer states yet.

    Activations are known only for LLaMA-like decoder layers. For any other network, returns the memory at the
    optimizer's step, which is less than the peak.
    """
    if not isinstance(net, NetworkSize):
        return _at_optimizer(net, settings, devices, on_gpu=on_gpu)
    return max(_moments(net, settings, data, devices, on_gpu=on_gpu), key=lambda each: each.total)


def _moments(
    net: NetworkSize, settings: TrainSettings, data: TokenLengths, devices: int, *, on_gpu: bool
) -> Iterator[MemoryEstimate]:
    """Yield the memory at each moment that can be the peak.

    A backward pass frees activations and allocates gradients evenly, layer by layer, so its peak is at one of its ends.
    """
    precision = _Precision.of(settings, on_gpu=on_gpu)
    kept = _Activations.of(net, _Batch.of(data, settings), settings, precision, on_gpu=on_gpu)
    shards = devices if settings.fsdp else 1
    weights = _weights(net, settings, precision, shards)
    learning_shards = shards if settings.method == "full" else 1
    learning = net.trainable * FLOAT32 // learning_shards
    passes, always = _working(net, settings, precision), _buckets(net, settings, devices)

    checkpointing = on_gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    # The layer whose backward pass runs: its saved tensors, with its MLP at its peak, and the gradients of its output
    # and of its MLP's input.
    running = kept.layer + max(0, kept.mlp_backward - kept.layer_mlp) + 2 * kept.stream
    if checkpointing:
        # Only the input of each layer is saved. The running layer is recomputed; in float32 its norm saves that same
        # input.
        layer = kept.stream
        running -= kept.stream if precision.stream == FLOAT32 else 0
    else:
        layer = kept.layer
        running -= kept.layer
    layers = net.layers * layer + kept.outer
    # Autocast's copies of weights live until the forward pass ends (its cache) or, if autograd saves them, until their
    # backward pass; a checkpointed layer saves none.
    copy_layer, copy_head = _copies(net, settings, precision)
    copies = net.layers * copy_layer + copy_head
    copies_kept = copy_head if checkpointing else copies

    accumulates = settings.accumulation(devices) > 1

    def at(moment: str, learned: int, newest: int, activations: int, more: int) -> MemoryEstimate:
        """Return the estimate at one moment.

        In the first pass of a step, `learned` parameters have a gradient by then, `newest` of them from the last
        operation. In later passes all have one, and the newest is a temporary tensor that is added to them (FSDP's is
        part of `passes`).
        """
        gradients, beside = learned * FLOAT32 // learning_shards, 0
        if accumulates:
            gradients, beside = learning, 0 if learning_shards > 1 else newest * FLOAT32
        return MemoryEstimate(weights, gradients, 2 * learning, activations, passes + always + more + beside, moment)

    head, down = net.head_trainable, net.down_trainable
    yield at("at the end of the forward pass", 0, 0, layers + kept.loss_forward, copies)
    yield at("at the loss", 0, 0, layers + kept.loss_backward, copies_kept)
    yield at("after the head's backward pass", head, head, layers + kept.logits_gradient, copies_kept)
    copies_left = max(copy_layer, copies_kept - copy_head)
    yield at("in the last layer's backward pass", head + down, down, layers + running, copies_left)
    learned = net.trainable - net.embedding_trainable - net.layer_trainable + down
    yield at("in the first layer's backward pass", learned, down, layer + running + kept.outer, copy_layer)
    # Tied embeddings: their gradient is a separate tensor that is added to the head's.
    newest, twice = (head, head * FLOAT32) if net.tied else (net.embedding_trainable, 0)
    yield at("at the end of the backward pass", net.trainable, newest, 2 * kept.stream, twice)
    yield _at_optimizer(net, settings, devices, on_gpu=on_gpu)


def _at_optimizer(net: Counts, settings: TrainSettings, devices: int, *, on_gpu: bool) -> MemoryEstimate:
    """Return the memory at the optimizer's step: weights, gradients, states; no activations, for any architecture."""
    shards = devices if settings.fsdp else 1
    learning = net.trainable * FLOAT32 // (shards if settings.method == "full" else 1)
    weights = _weights(net, settings, _Precision.of(settings, on_gpu=on_gpu), shards)
    return MemoryEstimate(
        weights, learning, 2 * learning, 0, _buckets(net, settings, devices), "at the optimizer's step"
    )


def _copies(net: NetworkSize, settings: TrainSettings, precision: _Precision) -> tuple[int, int]:
    """Return the bytes of autocast's copies of the float32 weights of one decoder layer and of the head."""
    if precision.compute == FLOAT32 or settings.fsdp:
        return 0, 0
    learning = net.linear // net.layers if settings.method == "full" else net.layer_trainable
    return learning * precision.compute, net.head * precision.compute if precision.copies else 0


def _weights(net: Counts, settings: TrainSettings, precision: _Precision, shards: int) -> int:
    """Return the bytes of the weights on one device."""
    frozen = net.parameters - net.trainable
    if settings.method == "full":
        return net.parameters * FLOAT32 // shards
    if settings.method == "lora":
        return frozen * precision.compute // shards + net.trainable * FLOAT32
    return round(net.linear * NF4_BYTES) + (frozen - net.linear + net.trainable) * FLOAT32


def _working(net: NetworkSize, settings: TrainSettings, precision: _Precision) -> int:
    """Return the bytes of temporary tensors in forward and backward passes."""
    passes = 0
    if settings.method == "qlora":
        passes += net.largest_linear * precision.compute  # bitsandbytes dequantises a whole layer
    if settings.fsdp:
        # Each decoder layer, the embeddings and the head are FSDP units. Gathered are the running unit and the next
        # (prefetched), and in a backward pass the unit's gradients and their copy for the reduction.
        learns = (
            max(net.layer_trainable, net.head_trainable, net.embedding_trainable) if settings.method == "full" else 0
        )
        passes += 2 * (max(net.head, net.layer) + learns) * precision.compute
    return passes


def _buckets(net: Counts, settings: TrainSettings, devices: int) -> int:
    """Return the bytes of DistributedDataParallel's copies of the gradients (gradient_as_bucket_view is off)."""
    return net.trainable * FLOAT32 if devices > 1 and not settings.fsdp else 0
