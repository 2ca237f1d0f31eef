"""A request in the terms of the OpenAI API, with vLLM's extensions where the API has no word for it."""

from dataclasses import dataclass
from typing import Any

import orjson

from selfinstruct_local.engines.base import Request
from selfinstruct_local.engines.server_pool import Server
from selfinstruct_local.errors import EngineDeadError, UsageError
from selfinstruct_local.templates.conversation import FolderEncoder, is_conversation

# What vLLM and its like otherwise take from the model's generation_config.json, which the engine in our own process
# does not read; these values switch it off.
_PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
NEVER = -100  # the least bias on a token that the API takes
_HINT = "name the served folder with --model"


@dataclass(frozen=True, slots=True)
class Question:
    """A request as servers are asked it.

    Attributes:
        request: what is asked.
        token_ids: of the prompt, where it had to be encoded here; else None, and the server encodes it.
        end_tokens: that end a text; empty where they are not needed.
        stop_tokens: that end the turn which is written, beside those that the server knows.
    """

    request: Request
    token_ids: list[int] | None = None
    end_tokens: tuple[int, ...] = ()
    stop_tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, request: Request, encoder: FolderEncoder | None) -> "Question":
        """The request with what only the files of the model tell; may take seconds the first time.

        Raises:
            UsageError: those are needed and not known here, or the chat template refuses the conversation.
        """
        if encoder is None:
            if request.sampling.forbid_end:
                message = f"this profile forbids the end-of-text token, whose number servers do not tell; {_HINT}"
                raise UsageError(message)
            if request.role == "user":
                message = f"this profile has the model write a user's turn, which servers cannot be asked for; {_HINT}"
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
        """Whether a server is asked on its route for chat messages."""
        return server.speaks_chat or (self.token_ids is None and is_conversation(self.request))

    def prompt(self, server: Server) -> dict[str, Any]:
        """The fields of a body that say what the completion follows."""
        request = self.request
        if not self.by_chat(server):
            return {"prompt": request.prompt if self.token_ids is None else self.token_ids}
        if not is_conversation(request):
            return {"messages": [{"role": "user", "content": request.prompt}]}
        if request.role == "user":
            message = f"{server.url}: has no completions route, and chat messages cannot ask for a user's turn"
            raise EngineDeadError(message)
        messages = [turn._asdict() for turn in request.turns]
        if not request.prompt:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": request.prompt})
        return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}

    def body(self, server: Server, model: str, room: int, *, with_logprobs: bool) -> dict[str, Any]:
        """The whole body.

        Args:
            server: that is asked.
            model: the name it serves.
            room: the most tokens that fit behind the prompt.
            with_logprobs: whether it is to tell how sure it was.

        Raises:
            EngineDeadError: the server's only route has no words for the request.
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
        if self.stop_tokens and server.context is not None:  # vLLM and its like have a field for them
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
        if with_logprobs:  # of the drawn tokens alone
            body["logprobs"] = True if self.by_chat(server) else 0
        return body | (_PLAIN_SAMPLING if server.context is not None else {})
