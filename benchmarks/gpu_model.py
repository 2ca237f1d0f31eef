"""A discrete-event model of one GPU serving a language model with continuous batching. Nothing here is measured.

A decoding step reads the weights and the cache once; prompts are computed at a share of the peak. The fitted constants
and the published measurements to compare the model with (`CHECKS`) are below.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from results import table

# Share of the memory bandwidth that a decoding step reaches: vLLM's 6.48 ms per token for one request on an H100 is
# 74 % (first of CHECKS), and the three checks with 2,048 output tokens are within a tenth.
EFFICIENCY = 0.75
# Host and sampler time per sequence and step: fitted to the two checks with the most concurrent requests.
SEQUENCE_SECONDS = 10e-6
# Share of the peak FLOP/s at which prompts are computed: NVIDIA's first-token latencies of LLaMA-7B at 2,048 tokens
# correspond to 39 % (36 ms, H100, FP8) and 66 % (133 ms, A100, FP16) (TensorRT-LLM 0.6.1, docs/source/performance.md).
PREFILL_SHARE = 0.5
PREFILL_BUDGET = 8_192  # prompt tokens per step: vLLM's default max_num_batched_tokens for a server on such GPUs
MEMORY_SHARE = 0.9  # this project's gpu_memory_share
RESERVED_BYTES = 2 * 2**30  # assumed: activations, CUDA graphs


class Gpu(NamedTuple):
    """An accelerator by its datasheet: bytes per second, dense FLOP per second, bytes of memory."""

    name: str
    bandwidth: float
    flops: float
    memory: float


class Model(NamedTuple):
    """A dense transformer: parameters, bytes per parameter, bytes of KV cache per token."""

    name: str
    parameters: float
    width: int
    token: int


# NVIDIA's datasheets. H100 SXM: 3.35 TB/s; 989 TFLOP/s in bf16 and 1,979 in FP8 are half of the printed values, which
# assume sparsity. A100 SXM 80 GB: 2.039 TB/s, 312 TFLOP/s.
H100 = Gpu("H100", 3.35e12, 989e12, 80 * 2**30)
H100_FP8 = Gpu("H100", 3.35e12, 1_979e12, 80 * 2**30)
A100 = Gpu("A100", 2.039e12, 312e12, 80 * 2**30)
# LLaMA-7B (Touvron et al. 2023, table 2): 6.7B, 32 layers, keys and values 4,096 wide. Llama 3.1 8B (Grattafiori et al.
# 2024, table 3): 8.0B, 32 layers, 8 key-value heads of 128.
LLAMA_7B = Model("LLaMA-7B", 6.74e9, 2, 2 * 32 * 4_096 * 2)
LLAMA_7B_FP8 = Model("LLaMA-7B, FP8", 6.74e9, 1, 2 * 32 * 4_096)
LLAMA_8B = Model("Llama-3.1-8B", 8.03e9, 2, 2 * 32 * 1_024 * 2)


class Rates(NamedTuple):
    """The speed of a model on one GPU: seconds for the parts of a step, and the tokens that its cache holds."""

    weights: float
    cached_token: float
    decoded_token: float
    sequence: float
    prompt_token: float
    cache: float

    def decode(self, batch: int, cached: float) -> float:
        """Return the seconds of a step for one token of each of `batch` sequences, with `cached` tokens cached."""
        return max(self.weights + self.cached_token * cached, self.decoded_token * batch) + self.sequence * batch


def rates(gpu: Gpu, model: Model) -> Rates:
    """Return the roofline of `model` on `gpu`: memory or arithmetic, whichever is slower, at `EFFICIENCY`."""
    weight_bytes = model.parameters * model.width
    token_flops = 2 * model.parameters
    room = MEMORY_SHARE * gpu.memory - weight_bytes - RESERVED_BYTES
    return Rates(
        weight_bytes / gpu.bandwidth / EFFICIENCY,
        model.token / gpu.bandwidth / EFFICIENCY,
        token_flops / gpu.flops / EFFICIENCY,
        SEQUENCE_SECONDS,
        token_flops / gpu.flops / PREFILL_SHARE,
        room // model.token,
    )


@dataclass(slots=True)
class InFlight:
    """A request in an engine: prompt tokens to compute, tokens still to generate, and the step of its admission."""

    job: int
    prompt: int
    length: int
    began: int = 0


@dataclass
class Replica:
    """One engine with continuous batching, by the rules of vLLM's scheduler (v1/core/sched/scheduler.py).

    Requests are admitted between steps while slots, cache and prefill budget last. When the cache is full, the request
    admitted last is preempted and computed again later. Prefix caching, which would help the engine, is not modelled.
    """

    rates: Rates
    slots: int
    clock: float = 0.0
    busy: float = 0.0  # seconds with at least one sequence running
    running_seconds: float = 0.0  # sum over all sequences
    preempted: int = 0
    waiting: deque[InFlight] = field(default_factory=deque)
    running: dict[int, InFlight] = field(default_factory=dict)
    _ends: list[tuple[int, int]] = field(default_factory=list)  # (step, admission number)
    _steps: int = 0
    _cached: int = 0
    _admissions: int = 0

    @property
    def held(self) -> int:
        """Number of requests, running or waiting."""
        return len(self.running) + len(self.waiting)

    def step(self, most: float = 1) -> list[InFlight]:
        """Run one step, or up to `most` until one joins, ends or is preempted; return the sequences that ended."""
        prompt_tokens = 0 if self._make_room() else self._admit()
        batch = len(self.running)
        if self.waiting and batch < self.slots:
            most = 1
        while self._ends[0][1] not in self.running:
            heapq.heappop(self._ends)
        room = (self.rates.cache - self._cached) // batch
        steps = int(max(1, min(most, self._ends[0][0] - self._steps, room)))
        seconds = steps * self.rates.decode(batch, self._cached + batch * (steps - 1) / 2)
        seconds += prompt_tokens * self.rates.prompt_token
        self.clock += seconds
        self.busy += seconds
        self.running_seconds += batch * seconds
        self._steps += steps
        self._cached += batch * steps
        return self._finish()

    def _make_room(self) -> bool:
        """Preempt sequences until each of the others has room for one more; return whether any was preempted."""
        before = self.preempted
        while self._cached + len(self.running) > self.rates.cache:
            _, last = self.running.popitem()
            done = self._steps - last.began
            self._cached -= last.prompt + done
            last.prompt, last.length = last.prompt + done, last.length - done
            self.waiting.appendleft(last)
            self.preempted += 1
        return self.preempted > before

    def _admit(self) -> int:
        """Admit waiting requests; return the prompt tokens to compute."""
        tokens = 0
        while self.waiting and len(self.running) < self.slots:
            prompt = self.waiting[0].prompt
            if tokens and tokens + prompt > PREFILL_BUDGET:
                break
            if self.running and self._cached + prompt + len(self.running) + 1 > self.rates.cache:
                break
            joining = self.waiting.popleft()
            joining.began = self._steps
            self.running[self._admissions] = joining
            heapq.heappush(self._ends, (self._steps + joining.length, self._admissions))
            self._admissions += 1
            self._cached += prompt
            tokens += prompt
        return tokens

    def _finish(self) -> list[InFlight]:
        ended = []
        while self._ends and self._ends[0][0] <= self._steps:
            sequence = self.running.pop(heapq.heappop(self._ends)[1], None)
            if sequence is not None:
                self._cached -= sequence.prompt + self._steps - sequence.began
                ended.append(sequence)
        return ended


class Check(NamedTuple):
    """A published measurement: output tokens per second of `requests` requests with `slots` in flight."""

    gpu: Gpu
    model: Model
    slots: int
    prompt: int
    length: int
    requests: int
    published: float
    source: str


TRT = "NVIDIA, TensorRT-LLM 0.6.1, docs/source/performance.md"
YOBITEL = "yobitelcomm.github.io/bench (concurrency sweep), vLLM 0.21: 6.48 ms per token"
# It gives no lengths; they are from another source. 1,024 slots is vLLM's default for offline inference on an H100.
AIMULTIPLE = "research.aimultiple.com/inference-engines, vLLM on ShareGPT (lengths: vLLM pull request 18566)"
VLLM_2024 = "vLLM pull request 7117, August 2024: 24.5 requests/s"
CHECKS = (
    Check(H100, LLAMA_8B, 1, 0, 256, 1, 1000 / 6.48, YOBITEL),
    Check(H100, LLAMA_8B, 1_000, 230, 203, 1_000, 12_553, AIMULTIPLE),
    Check(H100, LLAMA_8B, 256, 256, 256, 1_000, 24.5 * 256, VLLM_2024),
    Check(H100_FP8, LLAMA_7B_FP8, 768, 128, 128, 768, 19_694, TRT),
    Check(H100_FP8, LLAMA_7B_FP8, 112, 128, 2_048, 112, 6_818, TRT),
    Check(H100_FP8, LLAMA_7B_FP8, 80, 2_048, 128, 80, 2_244, TRT),
    Check(H100_FP8, LLAMA_7B_FP8, 48, 2_048, 2_048, 48, 2_740, TRT),
    Check(A100, LLAMA_7B, 384, 128, 128, 384, 5_586, TRT),
    Check(A100, LLAMA_7B, 60, 128, 2_048, 60, 1_928, TRT),
    Check(A100, LLAMA_7B, 52, 2_048, 128, 52, 591, TRT),
)


def throughput(check: Check) -> float:
    """Return output tokens per second if all requests wait from the start.

    The cache is assumed to hold them all, as it did in the measurements.
    """
    engine = Replica(rates(check.gpu, check.model)._replace(cache=float("inf")), check.slots)
    engine.waiting.extend(InFlight(number, check.prompt, check.length) for number in range(check.requests))
    while engine.held:
        engine.step(most=check.length)
    return check.requests * check.length / engine.clock


def checks_table() -> str:
    """Return the table that compares the model with published measurements."""
    rows = []
    for each in CHECKS:
        simulated = throughput(each)
        shape = f"{each.slots:,} at once, {each.prompt:,} + {each.length:,}"
        figures = (f"{simulated:,.0f}", f"{each.published:,.0f}", f"{simulated / each.published:.2f}")
        rows.append((each.gpu.name, each.model.name, shape, *figures, each.source))
    head = ("GPU", "model", "requests, tokens in + out", "simulated tokens/s", "published", "ratio", "source")
    return table(head, rows)
