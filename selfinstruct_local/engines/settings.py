"""Settings for starting and reaching an engine. None affects which tasks a run accepts; all may change on resume."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Settings of the vLLM engine, or of the servers used in its place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    in_flight: int = Field(32, ge=1, le=4096, description="maximum concurrent requests (vLLM's max_num_seqs)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weight precision; auto is float32 on CPUs and the model's own on GPUs"
    )
    memory_gb: float = Field(2.0, gt=0, description="GiB for the KV cache on CPUs")
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="fraction of each GPU's memory for vLLM")
    tensor_parallel: int = Field(1, ge=1, le=4096, description="GPUs per model replica")
    hang_seconds: float = Field(
        300.0, gt=0, description="seconds without output after which the engine counts as hung and is restarted"
    )
    restarts: int = Field(
        3, ge=0, le=4096, description="consecutive restarts without a completion before the run fails"
    )
    endpoint: tuple[str, ...] = Field(
        (),
        description="base URLs of OpenAI-compatible servers (http://127.0.0.1:8000/v1); vLLM on this machine if empty",
    )
    request_seconds: float = Field(600.0, gt=0, description="timeout of one request to a server, in seconds")
    outage_seconds: float = Field(
        300.0, ge=0, description="seconds that all servers may be unreachable before the run fails"
    )
