"""Puts what a profile asks into a request: a text to go on from, or a conversation in which the answer is begun.

Both hold the same words, so one parser reads both. Leans on the JSON schemas that structured answers obey.
"""

from typing import Any

import orjson

from selfinstruct_local.engines.base import Request, Sampling
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.settings import PromptFormat
from selfinstruct_local.templates.turns import Turn


def ask(  # noqa: PLR0917 - what a request is made of
    job: Job, stage: str, branch: int, text: str, opening: str, sampling: Sampling, prompt_format: PromptFormat
) -> Request:
    """The request in the wanted format.

    Args:
        job: that asks.
        stage: of the request's key.
        branch: of the request's key.
        text: the whole completion prompt, which ends with `opening`.
        opening: what the answer begins with.
        sampling: how it is drawn.
        prompt_format: in a chat, all before `opening` is the user's turn.
    """
    if prompt_format == "completion":
        return job.request(stage, branch, text, sampling)
    turn = Turn("user", text.removesuffix(opening).rstrip())
    return job.request(stage, branch, opening, sampling, (turn,))


def object_schema(*names: str) -> dict[str, Any]:
    """A JSON object with these texts, in this order, and nothing else.

    The texts have no bounds: xgrammar 0.2 turns `minLength`, `maxLength` and most patterns into characters that
    stand for themselves, and a text with bounds could hold no quotation mark and no line break. The token limit and the
    rules bound them.
    """
    fields = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": fields, "required": list(names), "additionalProperties": False}


def array_schema(items: dict[str, Any], *, least: int, most: int) -> dict[str, Any]:
    """A JSON array of `least` to `most` items."""
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as `Sampling.json_schema` holds it."""
    return orjson.dumps(schema).decode()
