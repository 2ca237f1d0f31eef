"""Inference engines: the interface, vLLM on this machine, and OpenAI-compatible servers."""

from selfinstruct_local.engines.base import Completion, Engine, FinishReason, Request, RequestKey, Sampling

__all__ = ["Completion", "Engine", "FinishReason", "Request", "RequestKey", "Sampling"]
