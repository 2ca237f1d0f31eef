"""Instances: records with the same instruction but another input or output, which are not near copies.

Self-Instruct's `all_generated_instances.jsonl` and the `export` of tasks with several instances have one record per
instance. A pass over records keeps the later ones too; identical records are still duplicates. Generation does not use
this: a model that writes an instruction twice has written a near copy.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.task import Instance, Task, Verdict

SAME = 1.0  # the ROUGE-L F of texts with the same tokens
_NO_CASE = Instance("", "")
_DIGEST_BYTES = 8


class Digests(NamedTuple):
    """The digests that identify a task and its instances.

    Attributes:
        instruction: digest of the instruction, without surrounding white space.
        cases: digests of the instruction with each input and output; instances with neither are left out.
    """

    instruction: int
    cases: tuple[int, ...]

    @classmethod
    def of(cls, task: Task) -> "Digests":
        """Return the digests of a task, valid only in this process."""
        instruction = hash(task.instruction.strip())
        return cls(instruction, tuple([hash((instruction, *case)) for case in task.instances if case != _NO_CASE]))

    @classmethod
    def stable(cls, task: Task) -> "Digests":
        """Return the digests of a task that are the same in every process, as signed 64-bit integers."""
        instruction = blake2b(task.instruction.strip().encode(), digest_size=_DIGEST_BYTES)
        cases = []
        for case in task.instances:
            if case == _NO_CASE:
                continue
            digest = instruction.copy()
            digest.update(f"\0{len(case.input)}\0{case.input}{case.output}".encode())
            cases.append(_as_integer(digest.digest()))
        return cls(_as_integer(instruction.digest()), tuple(cases))


def _as_integer(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True)


class Instances:
    """The kept tasks of a pass over records, with their instances."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, task: Digests) -> None:
        """Record a kept task."""
        self._seen.add(task.instruction)
        self._seen.update(task.cases)

    def take(self, task: Digests) -> bool:
        """Return whether a record adds an instance to a kept task, and record the instance."""
        if task.instruction not in self._seen or self._seen.issuperset(task.cases):
            return False
        self._seen.update(task.cases)
        return True

    def settle(self, tasks: Sequence[Task], verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Return the verdicts on records, in order, with further instances of kept tasks kept.

        The verdict on a further instance names the first record of its task as `neighbor`, because the instruction is
        in the pool already.
        """
        note = self._seen.add
        # Does the same as `add`, in half the time. All kept tasks are added first: a kept task shares its tokens with
        # none before it, so no record of the batch can be an instance of a later one.
        for task, verdict in zip(tasks, verdicts, strict=True):
            if verdict.keep:
                instruction = hash(task.instruction.strip())
                note(instruction)
                for case in task.instances:
                    note(hash((instruction, *case)))
        settled = list(verdicts)
        for number, verdict in enumerate(verdicts):
            if verdict.score == SAME and verdict.rule == NOT_NOVEL and self.take(Digests.of(tasks[number])):
                settled[number] = verdict._replace(keep=True, rule="", detail="")
        return settled
