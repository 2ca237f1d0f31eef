"""A job: one prompt drawn from the pool, and all that follows from its completion.

A profile writes a job as a generator that yields the requests it needs, receives their completions and
returns what it made of them. Everything random in it comes from (seed, job, stage, branch), and the pool it
sees is fixed by its number, so the same completions always give the same drafts. That is what lets a run be
killed: stored completions are simply fed to the generator again.
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
    """A task read out of a completion, not yet decided; or a piece of text that did not give one.

    `rule` and `detail` say why the parser refused it; both are empty for a task that was read.
    """

    task: Task
    rule: str = ""
    detail: str = ""


Draw: TypeAlias = Callable[[Random, Sequence[Task], int], Sequence[Task]]
NearCopies: TypeAlias = Callable[[Sequence[str], int], list[str | None]]
Steps: TypeAlias = Generator[list[Request], list[Completion], list[ParsedTask]]


def screen(rules: Sequence[Rule], draft: ParsedTask) -> ParsedTask:
    """The draft, refused if a rule refuses what there is of it, before more tokens are spent on its kind or answer.

    What is refused so is no whole task, keeps no instance, and is not decided again as one.
    """
    if draft.rule:
        return draft
    verdict = apply_rules(rules, draft.task)
    return draft if verdict.keep else ParsedTask(draft.task._replace(instances=()), verdict.rule, verdict.detail)


def passed(drafts: Sequence[ParsedTask]) -> list[int]:
    """Return the positions of the drafts that nothing has rejected."""
    return [branch for branch, draft in enumerate(drafts) if not draft.rule]


class Profile(Protocol):
    """A way of asking for tasks."""

    @property
    def name(self) -> str:
        """As `--profile` names it."""

    @property
    def demonstrations(self) -> int:
        """Tasks shown in a prompt; where there are fewer seeds and no pool yet, all of them."""

    @property
    def shows_whole_tasks(self) -> bool:
        """Whether its prompts show inputs and outputs, and not instructions alone."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompt templates it uses; their texts decide a run."""

    def steps(self, job: "Job") -> Steps:
        """The job as a generator: yields requests, is sent their completions in the same order."""


def stream_seed(run_seed: int, job: int, stage: str, branch: int) -> int:
    """A 31-bit seed of a stream of its own for every (seed, job, stage, branch).

    BLAKE2b of the four, so that neighbouring jobs share nothing; 31 bits fit every server's seed field.
    """
    digest = hashlib.blake2b(f"{run_seed}/{job}/{stage}/{branch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 33


@dataclass(slots=True)
class Job:
    """What a profile may use to do its work.

    Attributes:
        number: k, counted from 0.
        run_seed: of the run.
        seeds: the hand-written tasks.
        generated: the pool of accepted tasks as this job may see it.
        shown: the tasks shown as demonstrations, filled by `demonstrate`.
        find_near_copies: tells of instructions which are near copies of a seed or of `generated`, and why; see
            `screen_copies`.
    """

    number: int
    run_seed: int
    seeds: Sequence[Task]
    generated: Sequence[Task]
    shown: list[Task] = field(default_factory=list)
    find_near_copies: NearCopies | None = None

    def random(self, stage: str, branch: int = 0) -> Random:
        """The random stream of a stage of this job."""
        return Random(stream_seed(self.run_seed, self.number, stage, branch))  # noqa: S311

    def run_random(self, stage: str) -> Random:
        """The random stream of a stage that is the same for all jobs of the run."""
        return Random(stream_seed(self.run_seed, -1, stage, 0))  # noqa: S311

    def demonstrate(self, count: int, *, machine_made: int, stage: str, draw: Draw = Random.sample) -> list[Task]:
        """Draws `count` different tasks to show, shuffled: `machine_made` of them from the pool if it has any.

        Where there are fewer seeds, all of them.

        Args:
            count: of tasks in all.
            machine_made: of them from the pool, by `draw`; the others are seeds, all alike likely.
            stage: names the random stream.
            draw: takes a stream, the pool and a number, and gives so many of its tasks.
        """
        stream = self.random(f"draw {stage}")
        made = list(draw(stream, self.generated, min(machine_made, len(self.generated))))
        chosen = made + stream.sample(self.seeds, min(count - len(made), len(self.seeds)))
        stream.shuffle(chosen)
        self.shown.extend(chosen)
        return chosen

    def screen_copies(self, drafts: Sequence[ParsedTask]) -> list[ParsedTask]:
        """The drafts, of which near copies of what the job may see are refused before more tokens are spent on them.

        What joins the pool later is not seen here, so that the answer depends on the job alone; the decision on whole
        tasks sees all of it.
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
        """A request of this job, with the sampling seed that belongs to its key; see `Request` for the rest."""
        seed = stream_seed(self.run_seed, self.number, stage, branch)
        return Request(RequestKey(self.number, stage, branch), prompt, replace(sampling, seed=seed), turns, role)
