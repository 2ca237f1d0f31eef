"""How an engine is started and reached. None of it decides what a run accepts; all of it may change on resume."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Settings of the vLLM engine, in vLLM's own terms, or of the servers that take its place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    in_flight: int = Field(32, ge=1, le=4096, description="requests in flight at a time (vLLM's max_num_seqs)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the weights; auto is float32 on a CPU and the model's own on a GPU"
    )
    memory_gb: float = Field(2.0, gt=0, description="GiB for the KV cache on a CPU")
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="share of each GPU's memory for vLLM")
    tensor_parallel: int = Field(1, ge=1, le=4096, description="GPUs that share one copy of the model")
    hang_seconds: float = Field(
        300.0, gt=0, description="silence after which the engine is taken for hung and started again"
    )
    restarts: int = Field(3, ge=0, le=4096, description="starts in a row without a completion before the run gives up")
    endpoint: tuple[str, ...] = Field(
        (), description="base URLs of OpenAI-compatible servers (http://127.0.0.1:8000/v1); none: vLLM on this machine"
    )
    request_seconds: float = Field(600.0, gt=0, description="time-out of one request to a server")
    outage_seconds: float = Field(300.0, ge=0, description="time that all servers may be gone before the run gives up")
