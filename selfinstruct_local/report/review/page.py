"""The page of a review as a single HTML text that contains styles, script and sample."""

from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import TypedDict

from selfinstruct_local.report.embedding import content_policy, script_json, script_text
from selfinstruct_local.report.rows import harmless


class PageItem(TypedDict):
    """A task as a reader sees it: an opaque id, and the texts.

    The input is empty if the task has none, and the output is None if the task is a bare instruction.
    """

    id: str
    instruction: str
    input: str
    output: str | None


def render_review(sample: str, items: Sequence[PageItem]) -> str:
    """Return the page of a sample; `sample` is its checksum."""
    script = script_text(_resource("review.js"))
    return Template(_resource("review.html")).substitute(
        policy=content_policy([script]),
        style=_resource("review.css"),
        script=script,
        sample=script_json({"sample": sample, "items": harmless(items)}),
        tasks="1 task" if len(items) == 1 else f"{len(items):,} tasks",
    )


def _resource(name: str) -> str:
    return resources.files("selfinstruct_local.report.review").joinpath("page", name).read_text(encoding="utf-8")
