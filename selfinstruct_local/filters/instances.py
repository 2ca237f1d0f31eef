"""Records of one task: equal instructions with another input or output are its instances, and no near copies.

Self-Instruct's `all_generated_instances.jsonl`, and what `export` writes of tasks with several instances, have a record
per instance. A pass over records keeps the later ones too; identical records remain duplicates. Generation decides
without this: a model that writes an instruction again has written a near copy.
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
    """What identifies a task and its instances.

    Attributes:
        instruction: of the instruction, without white space around it.
        cases: of the instruction with each input and output; an instance without both is none.
    """

    instruction: int
    cases: tuple[int, ...]

    @classmethod
    def of(cls, task: Task) -> "Digests":
        """Returns those of a task, which mean nothing in another process."""
        instruction = hash(task.instruction.strip())
        return cls(instruction, tuple([hash((instruction, *case)) for case in task.instances if case != _NO_CASE]))

    @classmethod
    def stable(cls, task: Task) -> "Digests":
        """Returns those of a task that are the same in every process, as signed integers of 64 bits."""
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
    """The tasks that a pass over records kept, with their instances."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, task: Digests) -> None:
        """Notes a task that was kept."""
        self._seen.add(task.instruction)
        self._seen.update(task.cases)

    def take(self, task: Digests) -> bool:
        """Returns whether a record adds an instance to a task that was kept, and notes it."""
        if task.instruction not in self._seen or self._seen.issuperset(task.cases):
            return False
        self._seen.update(task.cases)
        return True

    def settle(self, tasks: Sequence[Task], verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Returns the verdicts on records, in order, with further instances of kept tasks kept.

        Such a verdict names the first record of its task as `neighbor`: the instruction is in the pool already.
        """
        note = self._seen.add
        # As `add` does, in half of the time. All come first: a kept task shares its tokens with none before it, so no
        # record of the batch can be an instance of a later one.
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
