"""`Task`, the one record that goes through every stage, and `Verdict`, what a filter says of it.

Named tuples, because files of millions of tasks pass through here: immutable, and made several times faster than frozen
dataclasses. Leans on nothing. Reading and writing files of tasks is in `taskfiles.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self


class Instance(NamedTuple):
    """One worked case of a task: its input (empty when the instruction needs none) and its output."""

    input: str
    output: str


class Lineage(NamedTuple):
    """Where a generated task comes from.

    Attributes:
        profile: the generation profile that made it.
        job: the job of the run, counted from 0.
        demonstrations: ids of the tasks shown in the prompt.
    """

    profile: str
    job: int
    demonstrations: tuple[str, ...]


class Task(NamedTuple):
    """An instruction and its worked cases.

    Attributes:
        instruction: what is asked.
        instances: the worked cases. Alpaca data has exactly one, Self-Instruct up to five; empty for
            a bare list of instructions.
        is_classification: whether the output is one of a few labels; None when nobody said.
        id: a name that is unique in its file or run; empty when the source has none.
        lineage: how it was generated; None for hand-written and imported tasks.
        measures: what was measured of it by name, such as `confidence` or a judge's points; None when nothing was.
    """

    instruction: str
    instances: tuple[Instance, ...] = ()
    is_classification: bool | None = None
    id: str = ""
    lineage: Lineage | None = None
    measures: Mapping[str, float] | None = None

    @classmethod
    def single(cls, instruction: str, task_input: str = "", output: str = "") -> Self:
        """A task with the one instance of the Alpaca format."""
        return cls(instruction, (Instance(task_input, output),))

    @property
    def input(self) -> str:
        """The input of the first instance; empty when there is none."""
        return self.instances[0].input if self.instances else ""

    @property
    def output(self) -> str:
        """The output of the first instance; empty when there is none."""
        return self.instances[0].output if self.instances else ""


def as_question(instruction: str, task_input: str) -> str:
    """Both in one text, as a user of a chat model says them: an empty line between, where there is an input."""
    return f"{instruction}\n\n{task_input}" if task_input else instruction


class Verdict(NamedTuple):
    """What the filter decided of one task, and why.

    Attributes:
        keep: whether the task stays; with a `neighbor` as a further instance of that one.
        rule: the rule that rejected it; empty when kept.
        detail: what the rule saw, for a person to read.
        neighbor: position in the novelty index of the most similar instruction, where one was sought.
        score: ROUGE-L F of that neighbour, in [0, 1].
    """

    keep: bool
    rule: str = ""
    detail: str = ""
    neighbor: int | None = None
    score: float | None = None


KEPT = Verdict(keep=True)
