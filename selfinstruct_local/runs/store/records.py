"""Record types of the run database, and conversions of tasks to and from its rows and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.task import Instance, Lineage, Task, Verdict


class Candidate(NamedTuple):
    """A task from a job, its verdict, and the id of its nearest neighbor."""

    task: Task
    verdict: Verdict
    neighbor_id: str | None = None


class DecidedJob(NamedTuple):
    """A decided job: the ids of the few-shot examples in its prompt, and its candidates in order."""

    number: int
    demonstrations: Sequence[str]
    candidates: Sequence[Candidate]


class LedgerJob(NamedTuple):
    """A decided job as read from the database, with the counts of its completions."""

    decided: DecidedJob
    counts: tuple[int, int, int, int]  # completions, prompt, completion and cached tokens


class PoolTask(NamedTuple):
    """The index of an accepted task in the pool, and the key of its candidate."""

    place: int
    job: int
    position: int


class InheritedTask(NamedTuple):
    """A task that was accepted in another run or file, and its origin."""

    task: Task
    origin: Mapping[str, Any]


class Totals(NamedTuple):
    """Counts over all sessions of a run.

    Attributes:
        jobs: decided jobs.
        accepted: accepted tasks, inherited ones included.
        inherited: tasks inherited from other runs and files.
        rejected: number of candidates by the rule that rejected them, most frequent first.
        completions: stored completions.
        prompt_tokens: prompt tokens of the stored completions.
        cached_tokens: prompt tokens served by the engine's prefix cache.
        completion_tokens: generated tokens.
    """

    jobs: int
    accepted: int
    inherited: int
    rejected: dict[str, int]
    completions: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Session(NamedTuple):
    """One session of `generate` on the run: its settings, and how it ended (None: killed, or running)."""

    number: int
    started_at: str
    settings: dict[str, Any]
    engine: dict[str, str]
    seconds: float | None
    outcome: str | None
    measured: dict[str, Any] | None


def candidate_id(job: int, position: int) -> str:
    """Return the id of the candidate at `position` in a job."""
    return f"gen-{job}-{position}"


def inherited_id(position: int) -> str:
    """Return the id of an inherited task."""
    return f"inherited-{position}"


def instances_to_json(instances: Sequence[Instance]) -> str:
    """Return instances as a JSON array of [input, output]."""
    return orjson.dumps([[each.input, each.output] for each in instances]).decode()


def instances_from_json(text: str) -> tuple[Instance, ...]:
    """Return instances from the JSON of `instances_to_json`."""
    return tuple([Instance(*pair) for pair in orjson.loads(text)])


def measures_to_json(measures: Mapping[str, float] | None) -> str | None:
    """Return measured values as a JSON object, or None if there are none."""
    return orjson.dumps(dict(measures)).decode() if measures else None


def measures_from_json(text: str | None) -> dict[str, float] | None:
    """Return measured values from the JSON of `measures_to_json`."""
    return None if text is None else dict(orjson.loads(text))


def candidate_to_task(row: Sequence[Any], profile: str) -> Task:
    """Return a task from job, position, instruction, instances, is_classification, measures and demonstrations."""
    job, position, instruction, instances, is_classification, measures, demonstrations = row
    return Task(
        instruction,
        instances_from_json(instances),
        None if is_classification is None else bool(is_classification),
        candidate_id(job, position),
        Lineage(profile, job, tuple(orjson.loads(demonstrations))),
        measures_from_json(measures),
    )


def task_to_json(task: Task) -> str:
    """Return a task with its id as JSON, without its lineage and measures."""
    return orjson.dumps(
        {
            "id": task.id,
            "instruction": task.instruction,
            "instances": [[each.input, each.output] for each in task.instances],
            "is_classification": task.is_classification,
        }
    ).decode()


def task_from_json(text: str) -> Task:
    """Return a task from the JSON of `task_to_json`."""
    value = orjson.loads(text)
    instances = tuple(Instance(*pair) for pair in value["instances"])
    return Task(value["instruction"], instances, value["is_classification"], value["id"])


def candidate_from_row(  # noqa: PLR0913, PLR0917 - the columns of the table
    job: int,
    position: int,
    instruction: str,
    instances: str,
    is_classification: int | None,
    rule: str,
    detail: str,
    neighbor: str | None,
    score: float | None,
    measures: str | None,
) -> Candidate:
    """Return a candidate from the columns of its row; its neighbor is only known by id."""
    kind = None if is_classification is None else bool(is_classification)
    measured = measures_from_json(measures)
    task = Task(instruction, instances_from_json(instances), kind, candidate_id(job, position), measures=measured)
    return Candidate(task, Verdict(not rule, rule, detail, None, score), neighbor)
