"""Decide jobs: filter the tasks of a job by rules and novelty, and add the accepted ones to the pool."""

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

CHECK = "check."  # prefix in a task's measures for the name of a check that it passed
# Instructions per batch when the index is built.
INDEX_BATCH = 8192
# Tasks scored per transaction, which takes a fraction of a second with a pool of 50,000.
SCORE_BATCH = 256


class JobDecider:
    """Accept or reject the tasks of jobs, in job order, and keep pool and novelty index in sync."""

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
        """Build the novelty index of seeds and pool.

        Args:
            rules: rules applied before novelty.
            threshold: ROUGE-L F above which an instruction is a near copy.
            tokenizer: tokenizer for ROUGE-L.
            seeds: seed tasks, which are compared with and never exported.
            pool: pool that accepted tasks are added to.
            pool_instructions: instructions of the tasks in the pool, in pool order.
            max_echo: ROUGE-L F above which an output echoes its prompt; None skips this check.
            lang: language whose checks are run on outputs and recorded if passed; None runs no checks.
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
        """Return the verdicts on the parsed tasks of the next job, and add the accepted ones to the pool.

        Accepted tasks have no nearest neighbor yet, because the index proves novelty without finding it. See `score`.
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
        """Return the task with the checks that its outputs passed as measures."""
        if self._lang is None:
            return task
        passed = dict.fromkeys((f"{CHECK}{name}" for name in passed_checks(task, self._lang)), 1.0)
        return task._replace(measures={**(task.measures or {}), **passed}) if passed else task

    def find_near_copies(self, instructions: Sequence[str], visible: int) -> list[str | None]:
        """Return per instruction a too high ROUGE-L F with a seed or one of the first `visible` pool tasks, or None."""
        known = len(self._seeds) + visible
        found: list[str | None] = []
        for instruction in instructions:
            score = float(self._decider.index.scores(instruction)[:known].max(initial=0.0))
            found.append(f"ROUGE-L {score:.3f}" if score > self._threshold else None)
        return found

    def score(
        self, store: RunStore, keep_on: Callable[[], bool], announce: Callable[[int], None] = lambda _tasks: None
    ) -> None:
        """Store the nearest earlier neighbor and its score for all accepted tasks that lack them.

        This is a full scan of all earlier instructions on all processors, so it runs after the engine is closed. If
        `keep_on` stops it, the next session resumes it.

        Args:
            store: store of the run.
            keep_on: called before each batch; False stops.
            announce: called with the number of tasks to score, if there are any.
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
        """Return the ID of the task at `position` of the index, or "" for -1 (no earlier task)."""
        if position < 0:
            return ""
        seeds = len(self._seeds)
        return self._seeds[position].id if position < seeds else self.pool.id(position - seeds)
