"""Decides jobs: what a job made goes through rules and novelty, and what passes joins the pool."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

from selfinstruct_local.filters.checks import passed_checks
from selfinstruct_local.filters.decide import Decider
from selfinstruct_local.filters.echo import echoes
from selfinstruct_local.filters.rules import Rule
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.kernels import NoveltyIndex, TokenizerName
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.store import Candidate, DecidedJob, RunStore, StoredPool, candidate_id
from selfinstruct_local.task import Task, Verdict

CHECK = "check."  # before the name of a check that a task passed, in its measures
# Instructions that join the index at a time when a run is opened.
INDEX_BATCH = 8192
# Tasks that are scored in one transaction: a fraction of a second at a pool of 50,000.
SCORE_BATCH = 256


class JobDecider:
    """Takes in or turns away what jobs made, in job order, and keeps pool and novelty index in step."""

    def __init__(
        self,
        rules: Sequence[Rule],
        threshold: float,
        tokenizer: TokenizerName,
        seeds: Sequence[Task],
        pool: StoredPool,
        pool_instructions: Iterable[str],
        *,
        max_echo: float | None = None,
        lang: Language | None = None,
    ) -> None:
        """Builds the novelty index over seeds and pool.

        Args:
            rules: asked before novelty.
            threshold: ROUGE-L F above which an instruction is a near copy.
            tokenizer: what its tokens are.
            seeds: compared with, never shown in an export.
            pool: grows by what is accepted.
            pool_instructions: of the tasks in it, in its order.
            max_echo: ROUGE-L F above which an output echoes its prompt; None leaves that alone.
            lang: of the tasks; what their outputs pass of the checks in it is noted. None notes nothing.
        """
        self.pool = pool
        self._seeds = seeds
        self._max_echo = max_echo
        self._threshold = threshold
        self._tokenizer: TokenizerName = tokenizer
        self._lang = lang
        index = NoveltyIndex(threshold=threshold, tokenizer=tokenizer)
        index.add([seed.instruction for seed in seeds])
        rest = iter(pool_instructions)
        while batch := list(islice(rest, INDEX_BATCH)):
            index.add(batch)
        self._decider = Decider(rules, index)

    def decide(self, job: Job, drafts: Sequence[ParsedTask]) -> DecidedJob:
        """Verdicts for the drafts of the job whose turn it is. Accepted tasks are in the pool when it returns.

        Those carry no neighbour yet: the index proves them novel without looking for it. See `score`.
        """
        tasks = [draft.task._replace(id=candidate_id(job.number, position)) for position, draft in enumerate(drafts)]
        read = [task for task, draft in zip(tasks, drafts, strict=True) if not draft.rule]
        find_echoes = None
        if self._max_echo is not None:
            find_echoes = partial(echoes, shown=job.shown, limit=self._max_echo, tokenizer=self._tokenizer)
        verdicts = iter(self._decider.decide(read, find_echoes))
        candidates = []
        for position, (task, draft) in enumerate(zip(tasks, drafts, strict=True)):
            if draft.rule:
                candidates.append(Candidate(task, Verdict(keep=False, rule=draft.rule, detail=draft.detail)))
                continue
            verdict = next(verdicts)
            if verdict.keep:
                self.pool.append(job.number, position)
            neighbor = None if verdict.neighbor is None else self._id(verdict.neighbor)
            candidates.append(Candidate(self._with_checks(task) if verdict.keep else task, verdict, neighbor))
        return DecidedJob(job.number, tuple(task.id for task in job.shown), candidates)

    def _with_checks(self, task: Task) -> Task:
        """Return the task with the names of the checks that its outputs passed, as measures."""
        if self._lang is None:
            return task
        passed = dict.fromkeys((f"{CHECK}{name}" for name in passed_checks(task, self._lang)), 1.0)
        return task._replace(measures={**(task.measures or {}), **passed}) if passed else task

    def find_near_copies(self, instructions: Sequence[str], visible: int) -> list[str | None]:
        """Of each, how near it comes to one of the seeds or of the first `visible` tasks of the pool, if too near."""
        known = len(self._seeds) + visible
        found: list[str | None] = []
        for instruction in instructions:
            score = float(self._decider.index.scores(instruction)[:known].max(initial=0.0))
            found.append(f"ROUGE-L {score:.3f}" if score > self._threshold else None)
        return found

    def score(
        self, store: RunStore, keep_on: Callable[[], bool], announce: Callable[[int], None] = lambda _tasks: None
    ) -> None:
        """Gives accepted tasks that have none their nearest neighbour of those before them, and its score.

        A full scan of what stands before each, on all processors, so it is left for when the engine is closed. What
        `keep_on` breaks off is taken up by the next session.

        Args:
            store: of the run.
            keep_on: asked before each batch.
            announce: told how many tasks there are to score, if there are any.
        """
        unscored = store.unscored()
        if unscored:
            announce(len(unscored))
        seeds = len(self._seeds)
        for first in range(0, len(unscored), SCORE_BATCH):
            if not keep_on():
                return
            batch = unscored[first : first + SCORE_BATCH]
            neighbors, scores = self._decider.index.nearest_before([seeds + each.place for each in batch], threads=None)
            store.set_neighbors(
                (each, self._id(int(neighbor)), float(score))
                for each, neighbor, score in zip(batch, neighbors, scores, strict=True)
            )

    def _id(self, position: int) -> str:
        """The id of the task whose instruction stands at `position` of the index; none for -1, before the first."""
        if position < 0:
            return ""
        seeds = len(self._seeds)
        return self._seeds[position].id if position < seeds else self.pool.id(position - seeds)
