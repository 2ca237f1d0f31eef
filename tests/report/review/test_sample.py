"""Drawing a sample: strata in proportion, each with a place where there are enough, the same for a seed."""

from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filters.echo import ECHO
from selfinstruct_local.report.review.sample import Draw, allocate, draw_sample
from selfinstruct_local.report.sources import Decided, ReportSource, read_source
from selfinstruct_local.task import Instance, Lineage, Task


def source(name: str, kept: list[Decided], rejected: list[Decided] | None = None, kind: str = "run") -> ReportSource:
    return ReportSource(
        name=name,
        kind="run" if kind == "run" else "file",
        kept=kept,
        rejected=rejected or [],
        inherited=0,
        seeds=[],
        seeds_name="",
        jobs=[],
        completion_tokens=0,
        threshold=0.7,
        script="latin",
        tokenizer="rouge",
        facts={},
    )


def tasks(count: int, *, profile: str = "alpaca", classification: bool = False, task_input: str = "") -> list[Decided]:
    lineage = Lineage(profile, 0, ())
    return [
        Decided(Task(f"Do {number}", (Instance(task_input, "Done"),), classification, f"{profile}-{number}", lineage))
        for number in range(count)
    ]


def rejects(rule: str, count: int) -> list[Decided]:
    return [Decided(Task.single(f"Do {rule} {number}"), rule) for number in range(count)]


def drawn(draw: Draw) -> list[str]:
    return [each.decided.task.instruction for each in draw.drawn]


def test_places_are_shared_in_proportion_and_each_group_has_one() -> None:
    assert allocate(10, {"a": 70, "b": 20, "c": 10}) == {"a": 7, "b": 2, "c": 1}
    assert allocate(5, {"a": 98, "b": 1, "c": 1}) == {"a": 3, "b": 1, "c": 1}
    assert allocate(2, {"a": 5, "b": 60, "c": 35}) == {"a": 0, "b": 1, "c": 1}
    assert allocate(9, {"a": 2, "b": 3}) == {"a": 2, "b": 3}
    assert allocate(1, {}) == {}


@given(st.integers(0, 60), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_no_place_is_lost_and_no_group_is_overdrawn(places: int, sizes: list[int]) -> None:
    groups = dict(enumerate(sizes))
    given_places = allocate(places, groups)
    assert sum(given_places.values()) == min(places, sum(sizes))
    assert all(given_places[name] <= size for name, size in groups.items())
    if places >= len(sizes):
        assert all(given_places.values())


def test_strata_are_profile_classification_and_input() -> None:
    kept = [
        *tasks(60),
        *tasks(20, classification=True),
        *tasks(15, task_input="text"),
        *tasks(1, profile="magpie"),
        *tasks(4, task_input="text", classification=True),
    ]
    draw = draw_sample([source("run", kept)], 20, 0)
    counts = {each.stratum[2:]: (each.tasks, each.drawn) for each in draw.strata}
    assert counts == {
        ("alpaca", "no", False): (60, 12),
        ("alpaca", "yes", False): (20, 4),
        ("alpaca", "no", True): (15, 2),
        ("magpie", "no", False): (1, 1),
        ("alpaca", "yes", True): (4, 1),
    }
    assert len({each.decided.task for each in draw.drawn}) == 20


def test_a_seed_decides_the_sample_and_its_order() -> None:
    sources = [source("one", tasks(80)), source("two", tasks(40, profile="magpie"))]
    first = draw_sample(sources, 30, 5)
    assert draw_sample(sources, 30, 5) == first
    assert draw_sample(sources, 30, 6).drawn != first.drawn
    # Sources are mixed: 20 of the one and 10 of the other, in no blocks.
    order = [each.source for each in first.drawn]
    assert Counter(order) == {0: 20, 1: 10}
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)


def test_size_may_count_per_source_and_per_rule() -> None:
    kept = [source("one", tasks(80), rejects("short", 9)), source("two", tasks(5), rejects("prompt_echo", 2))]
    even = draw_sample(kept, 20, 0, per="source")
    assert Counter(each.source for each in even.drawn) == {0: 20, 1: 5}
    per_rule = draw_sample(kept, 5, 0, per="rule", rejected=True)
    assert Counter(each.decided.rule for each in per_rule.drawn) == {"short": 5, "prompt_echo": 2}
    both = draw_sample(kept, 4, 0, per="rule", accepted=True, rejected=True)
    assert Counter(each.decided.rule for each in both.drawn) == {"": 4, "short": 4, "prompt_echo": 2}


def test_runs_give_accepted_tasks_and_files_all_they_hold() -> None:
    kept, rejected = tasks(3), rejects("short", 3)
    assert {each.decided.rule for each in draw_sample([source("run", kept, rejected)], 9, 0).drawn} == {""}
    file = source("file", kept, rejected, kind="file")
    assert {each.decided.rule for each in draw_sample([file], 9, 0).drawn} == {"", "short"}
    assert {each.decided.rule for each in draw_sample([file], 9, 0, rejected=True).drawn} == {"short"}
    assert {each.decided.rule for each in draw_sample([file], 9, 0, accepted=True).drawn} == {""}
    assert draw_sample([source("run", [], rejected)], 9, 0).drawn == []


def test_one_instance_of_a_task_is_drawn_and_none_of_a_bare_instruction() -> None:
    many = Decided(Task("Add", tuple(Instance(str(number), "x") for number in range(5)), id="many"))
    bare = Decided(Task("Think"), "too_short")
    found = {draw_sample([source("run", [many])], 1, seed).drawn[0].instance for seed in range(40)}
    assert found == {0, 1, 2, 3, 4}
    assert draw_sample([source("run", [], [bare])], 1, 0, rejected=True).drawn[0].instance is None


def test_a_rejects_file_of_the_filter_is_stratified_by_rule(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    records = [
        {
            "instruction": f"Do {n}",
            "output": "x",
            "rejected": {"rule": "copied" if n % 4 else ECHO, "detail": ""},
        }
        for n in range(40)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    read = read_source(path, None, path.name, lambda _rows: None)
    draw = draw_sample([read], 8, 0)
    assert {each.stratum.rule: each.drawn for each in draw.strata} == {"prompt_echo": 2, "copied": 6}
    assert len(set(drawn(draw))) == 8


@pytest.mark.parametrize("size", [1, 3])
def test_every_source_has_a_task_where_there_are_enough_places(size: int) -> None:
    sources = [source("one", tasks(100)), source("two", tasks(1)), source("three", tasks(1))]
    found = {each.source for each in draw_sample(sources, size, 0).drawn}
    assert len(found) == size
