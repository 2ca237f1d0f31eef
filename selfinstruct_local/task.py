"""`Task`, the record type of every stage, and `Verdict`, the decision of a filter about a task.

They are named tuples because files have millions of tasks: immutable, and several times faster to create than frozen
dataclasses. `io/reader.py` and `io/writer.py` read and write files of tasks.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self


class Instance(NamedTuple):
    """One instance of a task: its input (empty if the instruction needs none) and its output."""

    input: str
    output: str


class Lineage(NamedTuple):
    """The origin of a generated task.

    Attributes:
        profile: generation profile.
        job: number of the job in the run, from 0.
        demonstrations: ids of the few-shot examples in the prompt.
    """

    profile: str
    job: int
    demonstrations: tuple[str, ...]


class Task(NamedTuple):
    """An instruction and its instances.

    Attributes:
        instruction: the instruction.
        instances: inputs with outputs. Alpaca data has exactly one, Self-Instruct up to five; empty for a bare
            instruction.
        is_classification: whether the output is one of a few labels; None if unknown.
        id: unique name in its file or run; empty if the source has none.
        lineage: how the task was generated; None for hand-written and imported tasks.
        measures: measured values by name, such as `confidence` or a judge's score; None if there are none.
    """

    instruction: str
    instances: tuple[Instance, ...] = ()
    is_classification: bool | None = None
    id: str = ""
    lineage: Lineage | None = None
    measures: Mapping[str, float] | None = None

    @classmethod
    def single(cls, instruction: str, task_input: str = "", output: str = "") -> Self:
        """Return a task with a single instance, as in the Alpaca format."""
        return cls(instruction, (Instance(task_input, output),))

    @property
    def input(self) -> str:
        """The input of the first instance; empty if there is none."""
        return self.instances[0].input if self.instances else ""

    @property
    def output(self) -> str:
        """The output of the first instance; empty if there is none."""
        return self.instances[0].output if self.instances else ""


def as_question(instruction: str, task_input: str) -> str:
    """Return the user turn for a chat model: the instruction, then an empty line and the input if there is one."""
    return f"{instruction}\n\n{task_input}" if task_input else instruction


class Verdict(NamedTuple):
    """The decision of a filter about one task, with its reason.

    Attributes:
        keep: whether the task is kept; with a `neighbor`, as a further instance of that task.
        rule: name of the rule that rejected the task; empty if kept.
        detail: what the rule found, as text for the user.
        neighbor: position of the most similar instruction in the novelty index; None if it was not searched.
        score: ROUGE-L F with the neighbor, in [0, 1].
    """

    keep: bool
    rule: str = ""
    detail: str = ""
    neighbor: int | None = None
    score: float | None = None


KEPT = Verdict(keep=True)
