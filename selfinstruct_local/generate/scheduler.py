"""Schedule requests and decisions, so that the engine stays full and the run is reproducible.

Job k is opened as soon as job k - W is decided, and sees the pool as of that decision. So up to W jobs are open at a
time, and the engine always has a next request, because W is larger than its requests in flight. The few-shot examples
of a prompt depend only on k, never on the order in which completions arrive. Jobs are decided in order: a job that
finishes early waits for the earlier ones.
"""

import sys
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from selfinstruct_local.engines.base import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.generate.job import Job, NearCopies, ParsedTask, Profile, Steps
from selfinstruct_local.task import Task


class _Prefix(Sequence[Task]):
    """The first `size` tasks of a growing pool; up to W prefixes share one list."""

    def __init__(self, pool: Sequence[Task], size: int) -> None:
        self._pool = pool
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        positions = range(self._size)[index]
        if isinstance(positions, int):
            return self._pool[positions]
        return [self._pool[position] for position in positions]


@dataclass(slots=True)
class _OpenJob:
    job: Job
    steps: Steps
    asked: list[RequestKey] = field(default_factory=list)
    answers: dict[RequestKey, Completion] = field(default_factory=dict)
    drafts: list[ParsedTask] | None = None


# Tries of a request that is aborted before its truncated text is accepted as the completion.
MAX_TRIES = 3


class Scheduler:
    """The source of requests for `Engine.generate`, which also keeps decisions in job order.

    Iteration yields the next request, or None if the window is full or all jobs are open; it never ends by itself.
    """

    def __init__(  # noqa: PLR0913 - a run and its state
        self,
        profile: Profile,
        *,
        seeds: Sequence[Task],
        run_seed: int,
        window: int,
        pool: Sequence[Task] = (),
        pool_sizes: Sequence[int] = (0,),
        stored: Mapping[RequestKey, Completion] | None = None,
        jobs: int | None = None,
        find_near_copies: NearCopies | None,
    ) -> None:
        """Start or resume a run.

        Args:
            profile: profile that runs the jobs.
            seeds: seed tasks.
            run_seed: random seed of the run.
            window: W, the lag of the prompt pool in jobs.
            pool: accepted tasks, in order; the caller extends it before it settles a job.
            pool_sizes: size of the pool after 0, 1, 2, ... decided jobs.
            stored: completions of undecided jobs, which are not requested again.
            jobs: number of jobs; None for no limit.
            find_near_copies: passed to every job, see `Job`; None leaves near copies to the decision.
        """
        self._profile = profile
        self._seeds = seeds
        self._run_seed = run_seed
        self._window = window
        self._pool = pool
        self._pool_sizes = array("q", pool_sizes)
        self._stored = dict(stored or {})
        self._jobs = sys.maxsize if jobs is None else jobs
        self._find_near_copies = find_near_copies
        self._next_job = self.decided
        self._open: dict[int, _OpenJob] = {}
        self._ready: deque[Request] = deque()
        self._asked: dict[RequestKey, tuple[Request, int]] = {}  # request and number of tries

    @property
    def decided(self) -> int:
        """Number of decided jobs, which is also the number of the next job to decide."""
        return len(self._pool_sizes) - 1

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        while not self._ready and self._next_job < min(self.decided + self._window, self._jobs):
            self._open_job(self._next_job)
            self._next_job += 1
        if not self._ready:
            return None
        request = self._ready.popleft()
        _, tries = self._asked.get(request.key, (request, 0))
        self._asked[request.key] = request, tries + 1
        return request

    def ask_again(self, completion: Completion) -> bool:
        """Requeue the request of an aborted completion, a bounded number of times, and return whether it was requeued.

        All other completions, including those of abandoned requests, must be stored and received.
        """
        request, tries = self._asked[completion.key]
        if completion.finish_reason is not FinishReason.ABORT or completion.given_up or tries >= MAX_TRIES:
            return False
        self._ready.append(request)
        return True

    def receive(self, completion: Completion) -> None:
        """Accept a completion; its job continues when all its requests are completed."""
        self._asked.pop(completion.key, None)
        opened = self._open[completion.key.job]
        opened.answers[completion.key] = completion
        self._advance(opened)

    def due(self) -> Iterator[tuple[Job, list[ParsedTask]]]:
        """Yield the finished jobs to decide next, in order; the caller must settle them before the next call."""
        number = self.decided
        while (opened := self._open.get(number)) is not None and opened.drafts is not None:
            yield opened.job, opened.drafts
            number += 1

    def settle(self, pool_sizes: Iterable[int]) -> None:
        """Record that the next jobs were decided, with the size of the pool after each."""
        for size in pool_sizes:
            del self._open[self.decided]
            self._pool_sizes.append(size)

    def _open_job(self, number: int) -> None:
        visible = self._pool_sizes[max(0, number - self._window + 1)]
        pool = _Prefix(self._pool, visible)
        job = Job(number, self._run_seed, self._seeds, pool, find_near_copies=self._find_near_copies)
        opened = _OpenJob(job, self._profile.steps(job))
        self._open[number] = opened
        self._resume(opened, None)
        self._advance(opened)

    def _advance(self, opened: _OpenJob) -> None:
        while opened.drafts is None and all(key in opened.answers for key in opened.asked):
            self._resume(opened, [opened.answers.pop(key) for key in opened.asked])

    def _resume(self, opened: _OpenJob, answers: list[Completion] | None) -> None:
        """Send completions to the job (None starts it) and queue its next requests, or keep its result."""
        try:
            requests = opened.steps.send(answers)  # type: ignore[arg-type]
        except StopIteration as finished:
            opened.drafts = finished.value
            return
        opened.asked = [request.key for request in requests]
        for request in requests:
            known = self._stored.pop(request.key, None)
            if known is None:
                self._ready.append(request)
            else:
                opened.answers[request.key] = known
