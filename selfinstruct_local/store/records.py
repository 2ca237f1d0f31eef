"""Tasks as the rows and JSON texts of a run's database."""

from collections.abc import Sequence
from typing import Any

import orjson

from selfinstruct_local.tasks import Instance, Lineage, Task


def candidate_id(job: int, position: int) -> str:
    """The id of the task that stands at `position` of what job `job` gave."""
    return f"gen-{job}-{position}"


def inherited_id(position: int) -> str:
    """The id of a task that was taken over from another run or file."""
    return f"inherited-{position}"


def instances_to_json(instances: Sequence[Instance]) -> str:
    """A JSON array of [input, output]."""
    return orjson.dumps([[each.input, each.output] for each in instances]).decode()


def instances_from_json(text: str) -> tuple[Instance, ...]:
    """The inverse of `instances_to_json`."""
    return tuple([Instance(*pair) for pair in orjson.loads(text)])


def candidate_to_task(row: Sequence[Any], profile: str) -> Task:
    """A task from job, position, instruction, instances, is_classification and demonstrations."""
    job, position, instruction, instances, is_classification, demonstrations = row
    return Task(
        instruction,
        instances_from_json(instances),
        None if is_classification is None else bool(is_classification),
        candidate_id(job, position),
        Lineage(profile, job, tuple(orjson.loads(demonstrations))),
    )


def task_to_json(task: Task) -> str:
    """A task with its id, without its lineage."""
    return orjson.dumps(
        {
            "id": task.id,
            "instruction": task.instruction,
            "instances": [[each.input, each.output] for each in task.instances],
            "is_classification": task.is_classification,
        }
    ).decode()


def task_from_json(text: str) -> Task:
    """The inverse of `task_to_json`."""
    value = orjson.loads(text)
    instances = tuple(Instance(*pair) for pair in value["instances"])
    return Task(value["instruction"], instances, value["is_classification"], value["id"])
