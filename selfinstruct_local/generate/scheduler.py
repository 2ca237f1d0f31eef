"""Keeps the engine full and the run reproducible: which request comes next, and whose turn it is.

Job k is opened as soon as job k - W is decided, and sees the pool as it stood right after that decision. So up
to W jobs are open at a time, the engine always finds a request (W is larger than what it holds in flight), and
what a prompt shows depends on k alone, never on the order in which completions arrive. Jobs are decided in
order: one that is ready early waits for its turn.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from selfinstruct_local.engine.base import Completion, Request, RequestKey
from selfinstruct_local.generate.job import Draft, Job, Profile, Steps
from selfinstruct_local.tasks import Task


class _Prefix(Sequence[Task]):
    """The first `size` tasks of a pool that goes on growing; W of these share one list."""

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
    drafts: list[Draft] | None = None


class Scheduler:
    """The source of requests for `Engine.generate`, and the keeper of the order of decisions.

    Iterating gives the next request, or None when the window is full; it never ends by itself.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        seeds: Sequence[Task],
        run_seed: int,
        window: int,
        accepted: Sequence[Task] = (),
        accepted_per_job: Sequence[int] = (),
        stored: Mapping[RequestKey, Completion] | None = None,
    ) -> None:
        """Starts a run, or takes one up again.

        Args:
            profile: makes jobs.
            seeds: the hand-written tasks.
            run_seed: of all random streams.
            window: W, in jobs.
            accepted: the pool so far, in order.
            accepted_per_job: how many each decided job added to it.
            stored: completions of jobs not decided yet, which are not asked for again.
        """
        self._profile = profile
        self._seeds = seeds
        self._run_seed = run_seed
        self._window = window
        self._pool = list(accepted)
        # _pool_sizes[n] is the size of the pool once n jobs are decided.
        self._pool_sizes = [0]
        for count in accepted_per_job:
            self._pool_sizes.append(self._pool_sizes[-1] + count)
        self._stored = dict(stored or {})
        self._next_job = self.decided
        self._open: dict[int, _OpenJob] = {}
        self._ready: deque[Request] = deque()

    @property
    def decided(self) -> int:
        """Number of decided jobs; also the number of the job whose turn it is."""
        return len(self._pool_sizes) - 1

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        while not self._ready and self._next_job < self.decided + self._window:
            self._open_job(self._next_job)
            self._next_job += 1
        return self._ready.popleft() if self._ready else None

    def receive(self, completion: Completion) -> None:
        """Takes a completion; its job goes on once all it asked for is there."""
        opened = self._open[completion.key.job]
        opened.answers[completion.key] = completion
        self._advance(opened)

    def due(self) -> Iterator[tuple[Job, list[Draft]]]:
        """The finished jobs whose turn it is, in order; each must be `settle`d before the next is taken."""
        while (opened := self._open.get(self.decided)) is not None and opened.drafts is not None:
            yield opened.job, opened.drafts

    def settle(self, job: Job, accepted: Sequence[Task]) -> None:
        """Notes the decision of the job whose turn it was: what it added to the pool."""
        del self._open[job.number]
        self._pool.extend(accepted)
        self._pool_sizes.append(len(self._pool))

    def _open_job(self, number: int) -> None:
        visible = self._pool_sizes[max(0, number - self._window + 1)]
        job = Job(number, self._run_seed, self._seeds, _Prefix(self._pool, visible))
        opened = _OpenJob(job, self._profile.steps(job))
        self._open[number] = opened
        self._resume(opened, None)
        self._advance(opened)

    def _advance(self, opened: _OpenJob) -> None:
        while opened.drafts is None and all(key in opened.answers for key in opened.asked):
            self._resume(opened, [opened.answers.pop(key) for key in opened.asked])

    def _resume(self, opened: _OpenJob, answers: list[Completion] | None) -> None:
        """Lets the job go on to its next requests (None starts it), or to its end."""
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
