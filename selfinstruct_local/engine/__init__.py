"""What answers prompts: the interface, and vLLM inside this process."""

from selfinstruct_local.engine.base import (
    Completion,
    Engine,
    FinishReason,
    Request,
    RequestKey,
    Sampling,
    Turn,
)

__all__ = ["Completion", "Engine", "FinishReason", "Request", "RequestKey", "Sampling", "Turn"]
