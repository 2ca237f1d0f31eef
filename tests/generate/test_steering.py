"""Which kinds, topics and demonstrations jobs draw, and what sees a near copy before its answer is asked for."""

from collections.abc import Callable, Sequence
from random import Random

import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.profiles.steering import ANY, DRAWN_AMONG, RECENT, Kind, Steering
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.task import Task

CLASS = [Task.single(f"Class {n}", "x" * (n % 2), "a")._replace(is_classification=True) for n in range(4)]
WITH_INPUT = [Task.single(f"Input {n}", "x", "a")._replace(is_classification=False) for n in range(4)]
BARE = [Task.single(f"Bare {n}", "", "a") for n in range(4)]  # of which nobody said what they are
KINDS = {Kind(classification=True): CLASS, Kind(None, True): WITH_INPUT, Kind(False, False): BARE}
ALIKE = [Task(f"I plan a trip to town number {number} with my dog") for number in range(DRAWN_AMONG - 1)]
RARE = Task("Sort these metals by density")


def drawn(count: int, *, favor_rare: bool) -> list[Task]:
    steering = Steering(load_settings(GenerateSettings, None, {"favor_rare": favor_rare}))
    return [task for seed in range(40) for task in steering.draw(Random(seed), [*ALIKE, RARE], count)]


def test_the_rare_is_shown_more_often() -> None:
    assert drawn(1, favor_rare=True).count(RARE) == 40  # the whole pool is looked at
    assert drawn(1, favor_rare=False).count(RARE) < 15


def test_as_many_are_drawn_as_are_wanted() -> None:
    assert len(drawn(2, favor_rare=True)) == 80
    assert Steering(load_settings(GenerateSettings, None, {"favor_rare": True})).draw(Random(0), [], 0) == []


def steering(**flags: object) -> Steering:
    free = {"classification_share": None, "input_share": None}
    return Steering(GenerateSettings.model_validate({**free, **flags}))


def kinds(steer: Steering, pool: Sequence[Task], jobs: int = 400) -> list[Kind]:
    return [steer.kind(Job(number, 0, [], pool)) for number in range(jobs)]


def test_without_shares_and_topics_all_is_left_to_the_model() -> None:
    job = Job(0, 0, [], [])
    assert (steering().kind(job), steering().topic(job), steering().requests(job, WORDINGS["en"])) == (ANY, "", [])
    assert all(ANY.fits(task) for task in [*CLASS, *WITH_INPUT, *BARE])


def test_topics_are_drawn_by_job() -> None:
    steer = steering(topics=("bees", "tides and\nmoons"))
    drawn = [steer.topic(Job(number, 0, [], [])) for number in range(200)]
    assert set(drawn) == {"bees", "tides and moons"}
    assert 60 < drawn.count("bees") < 140
    assert drawn == [steer.topic(Job(number, 0, [], [])) for number in range(200)]


def test_without_a_pool_kinds_are_drawn_by_their_shares() -> None:
    drawn = kinds(steering(classification_share=0.2, input_share=0.3), [])
    assert set(drawn) == set(KINDS)
    assert 0.15 < drawn.count(Kind(classification=True)) / 400 < 0.25
    others = [kind for kind in drawn if not kind.classification]
    assert 0.25 < others.count(Kind(None, True)) / len(others) < 0.35
    assert drawn == kinds(steering(classification_share=0.2, input_share=0.3), [])
    # One share alone leaves the rest to the model.
    assert set(kinds(steering(classification_share=0.2), [])) == {Kind(classification=True), Kind(classification=False)}
    assert set(kinds(steering(input_share=0.3), [])) == {Kind(None, True), Kind(None, False)}
    for share in (0, 1):
        assert set(kinds(steering(classification_share=share), CLASS + BARE)) == {Kind(classification=share == 1)}


def test_kinds_that_the_pool_lacks_are_drawn_more_often() -> None:
    steer = steering(classification_share=0.2, input_share=0.3)
    lacking = kinds(steer, BARE * 20)
    assert 150 < lacking.count(Kind(classification=True)) < 170  # at most twice the share
    too_many = kinds(steer, CLASS * 20)
    assert too_many.count(Kind(classification=True)) < 40
    # Inputs are counted among the other tasks, and only the last tasks of the pool count.
    assert kinds(steer, WITH_INPUT * 20).count(Kind(None, True)) < kinds(steer, CLASS * 20).count(Kind(None, True))
    assert kinds(steer, [*CLASS * 20, *(BARE * RECENT)[:RECENT]]) == lacking


def test_the_pool_comes_near_the_wanted_shares_though_the_kinds_succeed_unequally() -> None:
    steer = steering(classification_share=0.2, input_share=0.3)
    chance = {Kind(classification=True): 0.3, Kind(None, True): 0.4, Kind(False, False): 0.8}
    stream, pool = Random(5), list[Task]()
    for number in range(2000):
        kind = steer.kind(Job(number, 0, [], pool))
        if stream.random() < chance[kind]:
            pool.append(stream.choice(KINDS[kind]))
    # Drawn by the shares alone, they would be 0.10 and 0.18.
    assert 0.13 < sum(bool(task.is_classification) for task in pool) / len(pool) < 0.25
    others = [task for task in pool if not task.is_classification]
    assert 0.21 < sum(bool(task.input) for task in others) / len(others) < 0.35


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", [[], [*CLASS, *WITH_INPUT, *BARE]], ids=["no pool", "pool"])
def test_demonstrations_are_of_the_wanted_kind_and_filled_up(kind: Kind, pool: list[Task]) -> None:
    made = [task._replace(id=f"gen-{number}") for number, task in enumerate(pool)]
    flags = {"classification_share": float(bool(kind.classification)), "input_share": float(bool(kind.has_input))}
    seeds = [*CLASS, *WITH_INPUT, *BARE]
    for number in range(20):
        job = Job(number, 0, seeds, made)
        shown = steering(**flags).demonstrate(job, 3, machine_made=1, stage="tasks")
        assert len({task.instruction + task.id for task in shown}) == 3
        assert all(kind.fits(task) for task in shown)
        assert sum(task.id.startswith("gen-") for task in shown) == bool(pool)
        assert job.shown == shown
    job = Job(0, 0, [*KINDS[kind][:2], *(task for task in seeds if not kind.fits(task))], [])
    shown = steering(**flags).demonstrate(job, 6, machine_made=1, stage="tasks")
    assert len(set(shown)) == 6
    assert set(KINDS[kind][:2]) <= set(shown)
    few = Job(0, 0, BARE[:2], [])
    assert sorted(steering(**flags).demonstrate(few, 6, machine_made=1, stage="tasks")) == BARE[:2]


def screened(find: Callable[[Sequence[str], int], list[str | None]] | None) -> list[ParsedTask]:
    job = Job(0, 0, [], ALIKE, find_near_copies=find)
    return job.screen_copies(
        [ParsedTask(RARE), ParsedTask(ALIKE[0]), ParsedTask(Task("torn"), "truncated", "cut short")]
    )


def test_near_copies_of_what_a_job_may_see_are_refused_and_no_others() -> None:
    asked = []

    def find(instructions: Sequence[str], visible: int) -> list[str | None]:
        asked.append((list(instructions), visible))
        return [None, "ROUGE-L 1.000"]

    first, second, torn = screened(find)
    assert asked == [([RARE.instruction, ALIKE[0].instruction], len(ALIKE))]
    assert (first.rule, second.rule, second.detail, torn.rule) == ("", "not_novel", "ROUGE-L 1.000", "truncated")
    assert [draft.rule for draft in screened(None)] == ["", "", "truncated"]
