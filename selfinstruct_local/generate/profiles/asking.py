"""Build requests in either prompt format, and JSON schemas for structured output.

A request is a completion prompt, or a conversation with the beginning of the assistant turn. Both contain the same
words, so the same parser handles both.
"""

from typing import Any

import orjson

from selfinstruct_local.engines.base import Request, Sampling
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.settings import PromptFormat
from selfinstruct_local.templates.turns import Turn


def ask(  # noqa: PLR0917 - the parts of a request
    job: Job, stage: str, branch: int, text: str, opening: str, sampling: Sampling, prompt_format: PromptFormat
) -> Request:
    """Return a request in the given prompt format.

    Args:
        job: job of the request.
        stage: stage in the request's key.
        branch: branch in the request's key.
        text: whole completion prompt, which ends with `opening`.
        opening: beginning of the completion.
        sampling: sampling parameters.
        prompt_format: prompt format; with chat, everything before `opening` is the user turn.
    """
    if prompt_format == "completion":
        return job.request(stage, branch, text, sampling)
    turn = Turn("user", text.removesuffix(opening).rstrip())
    return job.request(stage, branch, opening, sampling, (turn,))


def object_schema(*names: str) -> dict[str, Any]:
    """Return the schema of a JSON object with exactly these string fields, in this order.

    The strings have no length limits: xgrammar 0.2 compiles `minLength`, `maxLength` and most patterns to unescaped
    characters, so a limited string could not contain quotation marks or line breaks. The token limit and the rules
    limit them instead.
    """
    fields = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": fields, "required": list(names), "additionalProperties": False}


def array_schema(items: dict[str, Any], *, least: int, most: int) -> dict[str, Any]:
    """Return the schema of a JSON array of `least` to `most` items."""
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


def schema_text(schema: dict[str, Any]) -> str:
    """Return a schema as text for `Sampling.json_schema`."""
    return orjson.dumps(schema).decode()
