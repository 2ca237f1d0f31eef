"""What favours the rare, and what sees a near copy before its answer is asked for."""

from collections.abc import Callable, Sequence
from random import Random

from selfinstruct_local.config import GenerateSettings, load_settings
from selfinstruct_local.generate.job import Draft, Job
from selfinstruct_local.generate.profiles.steering import RARE_AMONG, Steering
from selfinstruct_local.tasks import Task

ALIKE = [Task(f"I plan a trip to town number {number} with my dog") for number in range(RARE_AMONG - 1)]
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


def screened(find: Callable[[Sequence[str], int], list[str | None]] | None) -> list[Draft]:
    job = Job(0, 0, [], ALIKE, find_near_copies=find)
    return job.screen_copies([Draft(RARE), Draft(ALIKE[0]), Draft(Task("torn"), "unfinished", "cut short")])


def test_near_copies_of_what_a_job_may_see_are_refused_and_no_others() -> None:
    asked = []

    def find(instructions: Sequence[str], visible: int) -> list[str | None]:
        asked.append((list(instructions), visible))
        return [None, "ROUGE-L 1.000"]

    first, second, torn = screened(find)
    assert asked == [([RARE.instruction, ALIKE[0].instruction], len(ALIKE))]
    assert (first.rule, second.rule, second.detail, torn.rule) == ("", "not_novel", "ROUGE-L 1.000", "unfinished")
    assert [draft.rule for draft in screened(None)] == ["", "", "unfinished"]
