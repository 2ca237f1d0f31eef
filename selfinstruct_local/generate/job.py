"""A job: one prompt with few-shot examples from the pool, and everything that follows from its completion.

A profile implements a job as a generator that yields requests, receives their completions and returns parsed tasks.
All its randomness is derived from (seed, job, stage, branch), and its number determines the pool that it sees, so the
same completions always give the same parsed tasks. A killed run is therefore resumed by sending the stored completions
to the generator again.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple, Protocol, TypeAlias

from selfinstruct_local.engines.base import Completion, Request, RequestKey, Sampling
from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.filters.rules import Rule, apply_rules
from selfinstruct_local.task import Task
from selfinstruct_local.templates.turns import Role, Turn


class ParsedTask(NamedTuple):
    """A task parsed from a completion and not decided yet, or a piece of text without a valid task.

    `rule` and `detail` say why it was rejected; both are empty for a valid task.
    """

    task: Task
    rule: str = ""
    detail: str = ""


Draw: TypeAlias = Callable[[Random, Sequence[Task], int], Sequence[Task]]
NearCopies: TypeAlias = Callable[[Sequence[str], int], list[str | None]]
Steps: TypeAlias = Generator[list[Request], list[Completion], list[ParsedTask]]


def screen(rules: Sequence[Rule], draft: ParsedTask) -> ParsedTask:
    """Return the parsed task, rejected if a rule rejects it, before more tokens are spent on its type or output.

    A task rejected here is incomplete, loses its instances, and is not decided again.
    """
    if draft.rule:
        return draft
    verdict = apply_rules(rules, draft.task)
    return draft if verdict.keep else ParsedTask(draft.task._replace(instances=()), verdict.rule, verdict.detail)


def passed(drafts: Sequence[ParsedTask]) -> list[int]:
    """Return the positions of the parsed tasks that are not rejected."""
    return [branch for branch, draft in enumerate(drafts) if not draft.rule]


class Profile(Protocol):
    """A generation profile: a method of requesting tasks from the model."""

    @property
    def name(self) -> str:
        """Name for `--profile`."""

    @property
    def demonstrations(self) -> int:
        """Number of few-shot examples per prompt; all seeds if there are fewer and the pool is empty."""

    @property
    def shows_whole_tasks(self) -> bool:
        """Whether the few-shot examples include inputs and outputs, not only instructions."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompt templates; their texts are fixed for a run."""

    def steps(self, job: "Job") -> Steps:
        """Yield the requests of the job, receive their completions in the same order, and return the parsed tasks."""


def stream_seed(run_seed: int, job: int, stage: str, branch: int) -> int:
    """Return a 31-bit seed for the random stream of (seed, job, stage, branch).

    It is the BLAKE2b hash of the four values, so the streams of neighboring jobs are independent; 31 bits are valid in
    every server's seed field.
    """
    digest = hashlib.blake2b(f"{run_seed}/{job}/{stage}/{branch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


@dataclass(slots=True)
class Job:
    """The context of a job that its profile may use.

    Attributes:
        number: k, counted from 0.
        run_seed: random seed of the run.
        seeds: seed tasks.
        generated: accepted tasks that this job may see.
        shown: tasks used as few-shot examples, filled by `demonstrate`.
        find_near_copies: returns the reasons why instructions are near copies of a seed or of a task in `generated`;
            see `screen_copies`.
    """

    number: int
    run_seed: int
    seeds: Sequence[Task]
    generated: Sequence[Task]
    shown: list[Task] = field(default_factory=list)
    find_near_copies: NearCopies | None = None

    def random(self, stage: str, branch: int = 0) -> Random:
        """Return the random stream of a stage of this job."""
        return Random(stream_seed(self.run_seed, self.number, stage, branch))  # noqa: S311

    def run_random(self, stage: str) -> Random:
        """Return the random stream of a stage that is shared by all jobs of the run."""
        return Random(stream_seed(self.run_seed, -1, stage, 0))  # noqa: S311

    def demonstrate(self, count: int, *, machine_made: int, stage: str, draw: Draw = Random.sample) -> list[Task]:
        """Return `count` distinct few-shot examples, shuffled: up to `machine_made` from the pool, the others seeds.

        If there are fewer seeds than needed, all of them are returned.

        Args:
            count: total number of examples.
            machine_made: number of examples from the pool, selected by `draw`; seeds are drawn uniformly.
            stage: name of the random stream.
            draw: returns the given number of tasks from a pool, using a random stream.
        """
        stream = self.random(f"draw {stage}")
        made = list(draw(stream, self.generated, min(machine_made, len(self.generated))))
        chosen = made + stream.sample(self.seeds, min(count - len(made), len(self.seeds)))
        stream.shuffle(chosen)
        self.shown.extend(chosen)
        return chosen

    def screen_copies(self, drafts: Sequence[ParsedTask]) -> list[ParsedTask]:
        """Return the parsed tasks with near copies of seeds and `generated` rejected before more tokens are spent.

        Tasks that join the pool later are not compared with here, so that the result depends only on the job. The
        decision compares whole tasks with the entire pool.
        """
        if self.find_near_copies is None:
            return list(drafts)
        read = [draft.task.instruction for draft in drafts if not draft.rule]
        details = iter(self.find_near_copies(read, len(self.generated)))
        screened = []
        for draft in drafts:
            detail = None if draft.rule else next(details)
            refused = ParsedTask(draft.task._replace(instances=()), NOT_NOVEL, detail or "")
            screened.append(draft if detail is None else refused)
        return screened

    def request(
        self,
        stage: str,
        branch: int,
        prompt: str,
        sampling: Sampling,
        turns: tuple[Turn, ...] = (),
        role: Role = "assistant",
    ) -> Request:
        """Return a request of this job, with the sampling seed of its key; see `Request` for the arguments."""
        seed = stream_seed(self.run_seed, self.number, stage, branch)
        return Request(RequestKey(self.number, stage, branch), prompt, replace(sampling, seed=seed), turns, role)
