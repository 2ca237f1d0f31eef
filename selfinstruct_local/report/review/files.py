"""The files of a review: the key that `review make` writes, and the labels that the page saves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.files import check_name
from selfinstruct_local.io.json_faults import record_fault
from selfinstruct_local.io.reader import reading

Question = Literal["instruction", "input", "output"]
QUESTIONS: tuple[Question, ...] = ("instruction", "input", "output")
# The stages in which a task is decided; a rule that `filter` does not know rejects during generation.
Stage = Literal["accepted", "generation", "rules", "novelty"]

FileT = TypeVar("FileT", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeySource(_Record):
    """A source of the sample: a run or a file, with its profile and model if known."""

    name: StrictStr
    kind: Literal["run", "file"]
    profile: StrictStr = ""
    model: StrictStr = ""


class KeyStratum(_Record):
    """A stratum: the common properties of its tasks, their number, and how many were drawn."""

    source: int
    rule: StrictStr
    profile: StrictStr
    classification: StrictStr
    with_input: StrictBool | None
    tasks: int
    drawn: int


class KeyItem(_Record):
    """The origin of an item on the page.

    Attributes:
        id: its id in the page and in the labels.
        source: position of its source.
        record: id of the task in its run, or id or row in its file.
        instance: position of the shown instance; None if the task has none.
        profile: the generation profile; empty if none is recorded.
        classification: `yes`, `no` or `not said`.
        with_input: whether the shown instance has an input.
        stage: stage in which the task was decided.
        rule: rule that rejected it; empty for an accepted task.
        detail: what the rule found.
        instruction: its instruction.
    """

    id: StrictStr
    source: int = Field(ge=0)
    record: StrictStr
    instance: int | None
    profile: StrictStr
    classification: StrictStr
    with_input: StrictBool
    stage: Stage
    rule: StrictStr
    detail: StrictStr
    instruction: StrictStr


class Key(_Record):
    """The data that the page does not show: the origin of each item, in the order of the page."""

    format: Literal["selfinstruct-review-key"] = "selfinstruct-review-key"
    version: Literal[1] = 1
    sample: StrictStr
    seed: int
    sources: list[KeySource]
    strata: list[KeyStratum]
    items: list[KeyItem]


class Labels(_Record):
    """The labels of one reader.

    Attributes:
        sample: checksum of the sample.
        reader: the reader's name; may be empty.
        saved: when the file was saved (ISO 8601, UTC).
        answers: per item, in the order of the page, the questions that were asked; None for an unanswered question.
        notes: the reader's notes by item.
    """

    format: Literal["selfinstruct-review-labels"]
    version: Literal[1]
    sample: StrictStr
    reader: StrictStr
    saved: StrictStr
    answers: dict[StrictStr, dict[Question, StrictBool | None]]
    notes: dict[StrictStr, StrictStr]


def read_labels(path: Path) -> Labels:
    """Return the labels of a file that the page saved.

    Raises:
        UsageError: the file cannot be read or is something else.
    """
    labels = _read(
        path, Labels, "the labels of a review; name a file that the page of 'selfinstruct review make' saved"
    )
    if not labels.answers:
        message = f"{path}: contains no labels"
        raise UsageError(message)
    if not all("instruction" in answers for answers in labels.answers.values()):
        message = f"{path}: a task lacks the question 'instruction'; save the labels again from the page"
        raise UsageError(message)
    return labels


def read_key(path: Path) -> Key:
    """Return the key of a page.

    Raises:
        UsageError: the file cannot be read or is something else.
    """
    key = _read(path, Key, "the key of a review; name the .key.json file next to the page")
    if any(item.source >= len(key.sources) for item in key.items):
        message = f"{path}: an item has a source that the key does not list; re-create the page and its key"
        raise UsageError(message)
    return key


def _read(path: Path, model: type[FileT], wanted: str) -> FileT:
    check_name(path)
    with reading(path):
        data = path.read_bytes()
    try:
        value = orjson.loads(data)
        why = record_fault(data, value)
        if why is None:
            return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        why = ".".join(map(str, first["loc"])) + ": " + first["msg"].lower()
    except orjson.JSONDecodeError as error:
        why = str(error)
    message = f"{path}: not {wanted} ({why})"
    raise UsageError(message)


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as the bytes of an indented JSON file."""
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
