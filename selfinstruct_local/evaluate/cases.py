"""Held-out tasks to compare models on: one question and its reference each, read from what `train` reads.

Leans on the readers of `train/sources.py`; a case also keeps whether its task is classification.
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
from selfinstruct_local.train.sources import NO_CASE, Dropped, Sample, read_each, samples_of_record, samples_of_task

SEVERAL_TURNS = "a conversation of several turns"
NO_REFERENCE = "a conversation without a reference"
_PAIR = ["user", "assistant"]


class Case(NamedTuple):
    """A question and what a good answer to it is.

    Attributes:
        sample: of a user's turn and an assistant's.
        is_classification: whether the answer is one of a few labels; None when nobody said.
    """

    sample: Sample
    is_classification: bool | None = None

    @property
    def instruction(self) -> str:
        """What is asked; of a verbatim sample the very text that the answer follows."""
        return self.sample.turns[0].content

    @property
    def reference(self) -> str:
        """The answer that the data has."""
        return self.sample.turns[1].content


@dataclass(slots=True)
class HeldOut:
    """The cases, and how many samples did not become one and why.

    Attributes:
        paths: where they were read.
        cases: in the order of the data.
        dropped: count by reason.
    """

    paths: Sequence[Path]
    cases: list[Case] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Counts a sample that is not asked."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the questions and references."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(orjson.dumps([case.instruction, case.sample.input, case.reference]))
        return digest.hexdigest()


def read_held_out(paths: Sequence[Path], num: int, seed: int) -> HeldOut:
    """The cases of files and run folders, or a draw of `num` of them.

    Args:
        paths: in any format that `train` reads.
        num: the most cases.
        seed: of the draw.

    Raises:
        UsageError: a source is missing, or holds no case.
        BadRecordError: a task cannot be read or has no reference; the text names the place.
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
        stream = Random(f"held out {seed}")  # noqa: S311 - a draw of data
        drawn = sorted(stream.sample(range(len(held_out.cases)), num))
        held_out.cases = [held_out.cases[index] for index in drawn]
    return held_out


def _cases_of_task(task: Task) -> Iterator[Case]:
    return (Case(sample, task.is_classification) for sample in samples_of_task(task))


def _cases_of_record(record: Any) -> list[Case | Dropped]:
    samples = list(samples_of_record(record))
    # Conversations carry no such field; where a task has it, the reader has checked it.
    told = record.get("is_classification")
    kind = told if isinstance(told, bool) else None
    cases = [each if isinstance(each, Dropped) else _case(each, kind) for each in samples]
    # The published program's completions are often of no use; a task that a person wrote should have its reference.
    if {"instruction", "raw_instances"} & record.keys() == {"instruction"} and any(
        Dropped(reason) in cases for reason in (NO_CASE, NO_REFERENCE)
    ):
        message = "has no reference, which the answers are compared with; leave it out"
        raise ValueError(message)
    return cases


def _case(sample: Sample, kind: bool | None) -> Case | Dropped:  # noqa: FBT001
    return Case(sample, kind) if sample.turns[-1].content.strip() else Dropped(NO_REFERENCE)
