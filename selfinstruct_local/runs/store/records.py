"""What a run's database holds, as records, and how tasks become its rows and JSON texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.task import Instance, Lineage, Task, Verdict


class Candidate(NamedTuple):
    """A task a job gave, what was decided of it, and the id of its nearest neighbour."""

    task: Task
    verdict: Verdict
    neighbor_id: str | None = None


class DecidedJob(NamedTuple):
    """A job with its verdicts: the ids of the tasks its prompt showed, and its candidates in order."""

    number: int
    demonstrations: Sequence[str]
    candidates: Sequence[Candidate]


class LedgerJob(NamedTuple):
    """A decided job as it is read back, with what its completions counted."""

    decided: DecidedJob
    counts: tuple[int, int, int, int]  # completions, prompt, completion and cached tokens


class PoolTask(NamedTuple):
    """Where an accepted task stands: its place in the pool, and the key of its candidate."""

    place: int
    job: int
    position: int


class InheritedTask(NamedTuple):
    """A task that was accepted elsewhere, and where."""

    task: Task
    origin: Mapping[str, Any]


class Totals(NamedTuple):
    """Counts over all sessions of a run.

    Attributes:
        jobs: decided jobs.
        accepted: accepted tasks, with the inherited ones.
        inherited: tasks taken over from other runs and files.
        rejected: number of candidates by the rule that rejected them, most first.
        completions: stored completions.
        prompt_tokens: tokens of their prompts.
        cached_tokens: those of them that the engine's prefix cache held.
        completion_tokens: tokens written.
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
    """One start of `generate` on the run: its settings, and how it ended (None: killed, or at work)."""

    number: int
    started_at: str
    settings: dict[str, Any]
    engine: dict[str, str]
    seconds: float | None
    outcome: str | None
    measured: dict[str, Any] | None


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


def measures_to_json(measures: Mapping[str, float] | None) -> str | None:
    """A JSON object; None for nothing."""
    return orjson.dumps(dict(measures)).decode() if measures else None


def measures_from_json(text: str | None) -> dict[str, float] | None:
    """The inverse of `measures_to_json`."""
    return None if text is None else dict(orjson.loads(text))


def candidate_to_task(row: Sequence[Any], profile: str) -> Task:
    """A task from job, position, instruction, instances, is_classification, measures and demonstrations."""
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
    """A candidate from the columns of its row; its neighbour goes by id alone."""
    kind = None if is_classification is None else bool(is_classification)
    measured = measures_from_json(measures)
    task = Task(instruction, instances_from_json(instances), kind, candidate_id(job, position), measures=measured)
    return Candidate(task, Verdict(not rule, rule, detail, None, score), neighbor)
