"""Held-out tasks to compare models on: one question and its reference each, in any format that `train` reads.

A case also records whether its task is classification.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson

from selfinstruct_local.errors import UsageError
from selfinstruct_local.task import Task
from selfinstruct_local.train.sources import (
    NO_CASE,
    Dropped,
    TrainingSample,
    read_each,
    samples_of_record,
    samples_of_task,
)

SEVERAL_TURNS = "a conversation of several turns"
NO_REFERENCE = "a conversation without a reference"
_PAIR = ["user", "assistant"]


class Case(NamedTuple):
    """A question and its reference.

    Attributes:
        sample: a user turn and an assistant turn.
        is_classification: whether the answer is one of a few labels; None if unknown.
    """

    sample: TrainingSample
    is_classification: bool | None = None

    @property
    def instruction(self) -> str:
        """Return the instruction; for a verbatim sample, the exact text that the answer follows."""
        return self.sample.turns[0].content

    @property
    def reference(self) -> str:
        """Return the reference answer of the data."""
        return self.sample.turns[1].content


@dataclass(slots=True)
class HeldOut:
    """The cases, and the number of dropped samples by reason.

    Attributes:
        paths: files that they were read from.
        cases: in the order of the data.
        dropped: number of dropped samples by reason.
    """

    paths: Sequence[Path]
    cases: list[Case] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count a dropped sample."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 over the questions and references."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(orjson.dumps([case.instruction, case.sample.input, case.reference]))
        return digest.hexdigest()


def read_held_out(paths: Sequence[Path], num: int, seed: int) -> HeldOut:
    """Return the cases of files and run folders, or a random sample of `num` of them.

    Args:
        paths: sources in any format that `train` reads.
        num: highest number of cases.
        seed: random seed of the sample.

    Raises:
        UsageError: a source is missing, or has no case.
        BadRecordError: a task cannot be read or has no reference; the message names the place.
    """
    held_out = HeldOut(paths)
    for path in paths:
        before = len(held_out.cases)
        for case in read_each(path, _cases_of_task, _cases_of_record):
            if isinstance(case, Dropped):
                held_out.drop(case.reason)
            elif [turn.role for turn in case.sample.turns] == _PAIR:
                held_out.cases.append(case)
            else:
                held_out.drop(SEVERAL_TURNS)
        if len(held_out.cases) == before:
            reasons = ", ".join(f"{count} {reason}" for reason, count in held_out.dropped.items())
            message = f"--data {path}: holds no task with a reference" + (f" ({reasons})" if reasons else "")
            raise UsageError(message)
    if len(held_out.cases) > num:
        stream = Random(f"held out {seed}")  # noqa: S311 - samples data, no secret
        drawn = sorted(stream.sample(range(len(held_out.cases)), num))
        held_out.cases = [held_out.cases[index] for index in drawn]
    return held_out


def _cases_of_task(task: Task) -> Iterator[Case]:
    return (Case(sample, task.is_classification) for sample in samples_of_task(task))


def _cases_of_record(record: Any) -> list[Case | Dropped]:
    samples = list(samples_of_record(record))
    # Conversations have no such field; in a task, the reader has checked it.
    told = record.get("is_classification")
    kind = told if isinstance(told, bool) else None
    cases = [each if isinstance(each, Dropped) else _case(each, kind) for each in samples]
    # Tasks from the published program often lack a usable completion; a task written by a person should have its
    # reference.
    if {"instruction", "raw_instances"} & record.keys() == {"instruction"} and any(
        Dropped(reason) in cases for reason in (NO_CASE, NO_REFERENCE)
    ):
        message = "has no reference to compare answers with; remove it"
        raise ValueError(message)
    return cases


def _case(sample: TrainingSample, kind: bool | None) -> Case | Dropped:  # noqa: FBT001
    return Case(sample, kind) if sample.turns[-1].content.strip() else Dropped(NO_REFERENCE)
