from collections.abc import Sequence
from dataclasses import replace

import pytest

from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.generate.job import Job, ParsedTask, Steps, stream_seed
from selfinstruct_local.generate.scheduler import MAX_TRIES, Scheduler
from selfinstruct_local.task import Task

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=1)


class TwoSteps:
    """A profile that asks one thing, then two more at once, and says how much of the pool it saw."""

    name = "two-steps"
    demonstrations = 1
    shows_whole_tasks = False
    prompts = ()

    def steps(self, job: Job) -> Steps:
        seen = len(job.generated)
        (first,) = yield [job.request("first", 0, f"saw {seen}", SAMPLING)]
        left, right = yield [job.request("second", branch, first.text, SAMPLING) for branch in (0, 1)]
        return [ParsedTask(Task(f"{first.text} {left.text} {right.text} saw {seen}"))]


def reply(request: Request) -> Completion:
    text = f"{request.key.stage}{request.key.job}.{request.key.branch}"
    return Completion(request.key, text, FinishReason.STOP, 1, 1)


def make(window: int = 4, **more: object) -> Scheduler:
    defaults: dict[str, object] = {"pool": [], "find_near_copies": None}
    return Scheduler(TwoSteps(), seeds=[Task("seed")], run_seed=0, window=window, **{**defaults, **more})  # type: ignore[arg-type]


def settle_all(scheduler: Scheduler) -> list[str]:
    """Accepts all that is due: each job of this profile adds one task."""
    texts = [draft.task.instruction for _, drafts in scheduler.due() for draft in drafts]
    pool = scheduler._pool
    assert isinstance(pool, list)
    before = len(pool)
    pool += map(Task, texts)
    scheduler.settle(range(before + 1, len(pool) + 1))
    return texts


def pull(scheduler: Scheduler) -> list[Request]:
    requests = []
    while (request := next(scheduler)) is not None:
        requests.append(request)
    return requests


def test_the_window_bounds_what_is_open() -> None:
    scheduler = make(window=3)
    assert [request.key.job for request in pull(scheduler)] == [0, 1, 2]
    assert next(scheduler) is None


def test_a_job_ready_early_waits_for_its_turn() -> None:
    scheduler = make(window=2)
    first = pull(scheduler)
    scheduler.receive(reply(first[1]))
    for request in pull(scheduler):
        scheduler.receive(reply(request))
    assert settle_all(scheduler) == []
    scheduler.receive(reply(first[0]))
    for request in pull(scheduler):
        scheduler.receive(reply(request))
    assert [text.split()[0] for text in settle_all(scheduler)] == ["first0.0", "first1.0"]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_job_sees_the_pool_as_it_stood_a_window_ago(window: int) -> None:
    scheduler = make(window)
    texts: list[str] = []
    while len(texts) < 12:
        for request in pull(scheduler):
            scheduler.receive(reply(request))
        texts += settle_all(scheduler)
    # Each job adds one task, so job k, drawn after job k - W, sees k - W + 1 of them.
    assert [int(text.split()[-1]) for text in texts] == [max(0, k - window + 1) for k in range(len(texts))]


def test_stored_completions_are_not_asked_for_again() -> None:
    scheduler = make(window=2)
    asked: list[Request] = []
    stored: dict[RequestKey, Completion] = {}
    for _ in range(2):
        for request in pull(scheduler):
            asked.append(request)
            completion = reply(request)
            stored[request.key] = completion
            scheduler.receive(completion)
    straight = settle_all(scheduler)

    del stored[RequestKey(0, "second", 1)]
    resumed = make(window=2, stored=stored)
    (missing,) = pull(resumed)
    assert missing.key == RequestKey(0, "second", 1)
    assert missing in asked
    resumed.receive(reply(missing))
    assert settle_all(resumed) == straight


def test_an_aborted_request_is_asked_again_a_bounded_number_of_times() -> None:
    scheduler = make(window=1)
    (request,) = pull(scheduler)
    aborted = replace(reply(request), finish_reason=FinishReason.ABORT)
    for _ in range(MAX_TRIES - 1):
        assert scheduler.ask_again(aborted)
        assert pull(scheduler) == [request]
    assert not scheduler.ask_again(aborted)
    scheduler.receive(aborted)
    assert {each.key.stage for each in pull(scheduler)} == {"second"}


def test_what_the_engine_gave_up_is_not_asked_again() -> None:
    scheduler = make(window=1)
    (request,) = pull(scheduler)
    assert not scheduler.ask_again(replace(reply(request), finish_reason=FinishReason.ABORT, given_up="it dies of it"))


def test_a_resumed_scheduler_goes_on_where_the_decisions_ended() -> None:
    accepted = [Task("a"), Task("b"), Task("c")]
    scheduler = make(window=2, pool=accepted, pool_sizes=[0, 1, 1, 3])
    requests = pull(scheduler)
    assert [request.key.job for request in requests] == [3, 4]
    # Job 3 sees the pool after job 1, job 4 the pool after job 2.
    assert [request.prompt for request in requests] == ["saw 1", "saw 3"]


def test_streams_are_apart() -> None:
    seeds = {
        stream_seed(seed, job, stage, branch)
        for seed in (0, 1)
        for job in range(50)
        for stage in "ab"
        for branch in (0, 1)
    }
    assert len(seeds) == 2 * 50 * 2 * 2
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_pool_a_job_sees_does_not_grow_under_it() -> None:
    seen: list[Sequence[Task]] = []

    class Peek(TwoSteps):
        def steps(self, job: Job) -> Steps:
            seen.append(job.generated)
            yield from super().steps(job)
            return []

    pool = [Task("a")]
    scheduler = Scheduler(Peek(), seeds=[], run_seed=0, window=1, pool=pool, pool_sizes=[0, 1], find_near_copies=None)
    next(scheduler)
    pool.append(Task("later"))
    assert len(seen[0]) == 1
    assert list(seen[0]) == [Task("a")]
    assert seen[0][:5] == [Task("a")]
    with pytest.raises(IndexError):
        seen[0][1]
