"""Requests as OpenAI API bodies, with vLLM's extensions for parameters that the API lacks."""

from dataclasses import dataclass
from typing import Any

import orjson

from selfinstruct_local.engines.base import Request
from selfinstruct_local.engines.server_pool import Server
from selfinstruct_local.errors import EngineDeadError, UsageError
from selfinstruct_local.templates.conversation import FolderEncoder, is_conversation

# Values that disable parameters which vLLM and similar servers would otherwise take from the model's
# generation_config.json; the engine on this machine does not read that file.
_PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
NEVER = -100  # smallest token bias that the API accepts
_HINT = "give the served model's folder with --model"


@dataclass(frozen=True, slots=True)
class Question:
    """A request with the token IDs needed to send it to servers.

    Attributes:
        request: the request.
        token_ids: token IDs of the prompt, if it must be encoded on this side; None if the server encodes it.
        end_tokens: token IDs that end a text; empty if not needed.
        stop_tokens: token IDs that end the generated turn, in addition to those that the server knows.
    """

    request: Request
    token_ids: list[int] | None = None
    end_tokens: tuple[int, ...] = ()
    stop_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, request: Request, encoder: FolderEncoder | None) -> "Question":
        """Return the request with the token IDs that need the model's files; the first call may take seconds.

        Raises:
            UsageError: the files are needed and missing, or the chat template rejects the conversation.
        """
        if encoder is None:
            if request.sampling.forbid_end:
                message = f"this profile forbids the end-of-text token, whose ID servers do not report; {_HINT}"
                raise UsageError(message)
            if request.role == "user":
                message = f"this profile generates user turns, which the API of servers cannot request; {_HINT}"
                raise UsageError(message)
            return cls(request)
        here = is_conversation(request) or encoder.holds_control_text(request.prompt)
        return cls(
            request,
            encoder.encode(request) if here else None,
            encoder.end_tokens if request.sampling.forbid_end else (),
            encoder.stop_tokens(request) if is_conversation(request) else (),
        )

    def by_chat(self, server: Server) -> bool:
        """Return whether the request goes to the server's chat completions route."""
        return server.speaks_chat or (self.token_ids is None and is_conversation(self.request))

    def prompt(self, server: Server) -> dict[str, Any]:
        """Return the body fields that hold the prompt or the messages."""
        request = self.request
        if not self.by_chat(server):
            return {"prompt": request.prompt if self.token_ids is None else self.token_ids}
        if not is_conversation(request):
            return {"messages": [{"role": "user", "content": request.prompt}]}
        if request.role == "user":
            message = f"{server.url}: has no /completions route, and chat messages cannot request a user turn"
            raise EngineDeadError(message)
        messages = [turn._asdict() for turn in request.turns]
        if not request.prompt:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": request.prompt})
        return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}

    def body(self, server: Server, model: str, room: int, *, with_logprobs: bool) -> dict[str, Any]:
        """Return the whole body.

        Args:
            server: the server that receives it.
            model: name under which the server serves the model.
            room: maximum number of tokens that fit after the prompt.
            with_logprobs: whether to request log-probabilities.

        Raises:
            EngineDeadError: the server's only route cannot express the request.
        """
        sampling = self.request.sampling
        body = {
            "model": model,
            **self.prompt(server),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": min(sampling.max_tokens, room),
            "presence_penalty": sampling.presence_penalty,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self.stop_tokens and server.context is not None:  # vLLM and similar servers have a field for them
            body["stop_token_ids"] = list(self.stop_tokens)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.choice:
            body["structured_outputs"] = {"choice": list(sampling.choice)}
        elif sampling.json_schema:
            body["structured_outputs"] = {"json": orjson.Fragment(sampling.json_schema)}
        elif sampling.regex:
            body["structured_outputs"] = {"regex": sampling.regex}
        if sampling.forbid_end:
            body["logit_bias"] = {str(token_id): NEVER for token_id in self.end_tokens}
        if with_logprobs:  # only those of the sampled tokens
            body["logprobs"] = True if self.by_chat(server) else 0
        return body | (_PLAIN_SAMPLING if server.context is not None else {})
