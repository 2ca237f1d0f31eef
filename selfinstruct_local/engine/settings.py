"""How an engine is started. None of it decides what a run accepts; all of it may change on resume."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Settings of the vLLM engine, in vLLM's own terms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_flight: int = Field(32, ge=1, le=4096, description="requests in flight at a time (vLLM's max_num_seqs)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="precision of the weights; auto is float32 on a CPU and the model's own on a GPU"
    )
    memory_gb: float = Field(2.0, gt=0, description="GiB for the KV cache on a CPU")
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="share of each GPU's memory for vLLM")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
