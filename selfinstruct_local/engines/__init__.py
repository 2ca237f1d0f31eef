"""What answers prompts: the interface, and vLLM inside this process."""

from selfinstruct_local.engines.base import Completion, Engine, FinishReason, Request, RequestKey, Sampling

__all__ = ["Completion", "Engine", "FinishReason", "Request", "RequestKey", "Sampling"]
