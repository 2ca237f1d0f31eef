"""The record formats of tasks, validated field by field.

They are separate from `reader.py` so that pydantic is only imported if a record needs it: `reader.py` validates plain
Alpaca records, by far the most frequent, on its own. A null is a missing value, as in a column of a table.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictStr, ValidationError

from selfinstruct_local.io.published_instances import LABEL_MARK, parse_published_instances
from selfinstruct_local.task import Instance, Task

PUBLISHED_CASES = 5  # the maximum of the published program
_YES_NO = {"yes": True, "no": False}


def _without_nulls(value: Any) -> Any:
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


def _as_boolean(value: Any) -> Any:
    """Convert the text of the model, such as " Yes", that the published program stores."""
    return _YES_NO.get(value.strip().lower(), value) if isinstance(value, str) else value


class _InstanceRecord(BaseModel):
    input: StrictStr = ""
    output: StrictStr = ""


class _TaskRecord(BaseModel, ABC):
    model_config = ConfigDict(extra="ignore")
    id: StrictStr | int = ""
    instruction: StrictStr
    is_classification: Annotated[StrictBool | None, BeforeValidator(_as_boolean)] = None

    def to_task(self) -> Task:
        return Task(self.instruction, self.to_instances(), self.is_classification, str(self.id))

    @abstractmethod
    def to_instances(self) -> tuple[Instance, ...]:
        """Return the instances."""


class _AlpacaRecord(_TaskRecord):
    input: StrictStr = ""
    output: StrictStr = ""

    def to_instances(self) -> tuple[Instance, ...]:
        return (Instance(self.input, self.output),)


class _DollyRecord(_TaskRecord):
    """A record as in databricks-dolly-15k; other data sets have `response` and `input`."""

    input: StrictStr | None = None
    context: Any = ""
    response: StrictStr

    def to_instances(self) -> tuple[Instance, ...]:
        return (Instance(self.context if self.input is None else self.input, self.response),)


class _SeedRecord(_TaskRecord):
    instances: list[Annotated[_InstanceRecord, BeforeValidator(_without_nulls)]]

    def to_instances(self) -> tuple[Instance, ...]:
        return tuple(Instance(instance.input, instance.output) for instance in self.instances)


class _CompletionRecord(_TaskRecord):
    """A record of Self-Instruct's `machine_generated_instances.jsonl`, with the instances as the model wrote them."""

    raw_instances: StrictStr
    instance_metadata: Any = None

    def to_instances(self) -> tuple[Instance, ...]:
        is_classification = self.is_classification
        if is_classification is None:  # the published program stores it in a separate file
            text = self.raw_instances.lstrip()
            is_classification = text.startswith(LABEL_MARK) or (LABEL_MARK in text and "Output" not in text)
        return parse_published_instances(
            self.raw_instances,
            is_classification=is_classification,
            most=PUBLISHED_CASES,
            torn=self._was_cut_short(),
        )

    def _was_cut_short(self) -> bool:
        told = self.instance_metadata
        for step in ("response", "choices", 0, "finish_reason"):
            try:
                told = told[step]
            except (TypeError, KeyError, IndexError):
                return False
        return bool(told == "length")


def checked_task(record: dict[str, Any]) -> Task:
    """Return the task in a record.

    A record with `instances` is a seed. Otherwise the output is `output`; without it, the instances are parsed from
    `raw_instances`, or the output is `response` and the input `context`, as in Dolly.

    Raises:
        ValueError: a field is missing or has the wrong type; the message names it.
    """
    try:
        return _model(record).model_validate(_without_nulls(record)).to_task()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"field '{field}': {first['msg'].lower()}"
        raise ValueError(message) from error


def case_fields(record: dict[str, Any]) -> frozenset[str]:
    """Return the names of the fields from which `checked_task` reads the instances."""
    model = _model(record)
    if model is _DollyRecord:
        return frozenset({"response", "context" if record.get("input") is None else "input"})
    return _CASES[model]


def _model(record: dict[str, Any]) -> type[_TaskRecord]:
    if record.get("instances") is not None:
        return _SeedRecord
    if record.get("output") is not None:
        return _AlpacaRecord
    if isinstance(record.get("raw_instances"), str):
        return _CompletionRecord
    has_input = record.get("input") is not None or isinstance(record.get("context"), str | None)
    return _DollyRecord if isinstance(record.get("response"), str) and has_input else _AlpacaRecord


_CASES: dict[type[_TaskRecord], frozenset[str]] = {
    _SeedRecord: frozenset({"instances"}),
    _CompletionRecord: frozenset({"raw_instances"}),
    _AlpacaRecord: frozenset({"input", "output"}),
}
