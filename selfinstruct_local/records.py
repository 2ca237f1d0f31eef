"""What a record of a task may look like, checked field by field.

Apart from `taskfiles.py` so that pydantic is only imported where a record asks for it: plain Alpaca records, by far the
most, are checked in place.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, StrictStr, ValidationError

from selfinstruct_local.tasks import Instance, Task


class _InstanceRecord(BaseModel):
    input: StrictStr = ""
    output: StrictStr = ""


class _AlpacaRecord(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: StrictStr | int = ""
    instruction: StrictStr
    input: StrictStr = ""
    output: StrictStr = ""
    is_classification: StrictBool | None = None

    def to_task(self) -> Task:
        instances = (Instance(self.input, self.output),)
        return Task(self.instruction, instances, self.is_classification, str(self.id))


class _SeedRecord(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: StrictStr | int = ""
    instruction: StrictStr
    instances: list[_InstanceRecord]
    is_classification: StrictBool | None = None

    def to_task(self) -> Task:
        instances = tuple(Instance(instance.input, instance.output) for instance in self.instances)
        return Task(self.instruction, instances, self.is_classification, str(self.id))


def checked_task(record: dict[str, Any]) -> Task:
    """The task that a record describes: a seed if it has `instances`, otherwise Alpaca's.

    Raises:
        ValueError: a field is missing or has the wrong type; the text names it.
    """
    model = _SeedRecord if "instances" in record else _AlpacaRecord
    try:
        return model.model_validate(record).to_task()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"field '{field}': {first['msg'].lower()}"
        raise ValueError(message) from error
