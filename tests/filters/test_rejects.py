from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.filters.rejects import Place, read_reason, reject_record, task_record
from selfinstruct_local.task import Task, Verdict

places = st.builds(Place, st.text(max_size=5), st.integers(0, 9), st.text(max_size=5))
verdicts = st.builds(
    Verdict, st.just(value=False), st.text(), st.text(), score=st.none() | st.floats(0, 1, allow_nan=False)
)


@given(verdict=verdicts, own=places, near=st.none() | places)
def test_a_reason_is_read_as_it_was_written(verdict: Verdict, own: Place, near: Place | None) -> None:
    task = task_record(Task.single("Name a river.", "", "The Nile."))
    record = reject_record(task, verdict, own, near)
    assert {**record, **task} == record
    assert read_reason(record) == (verdict.rule, verdict.detail, near or Place(), verdict.score)


def test_a_field_of_somebody_else_is_no_reason() -> None:
    for field in ({}, {"rejected": "by me"}, {"rejected": {"detail": "x"}}, {"rejected": {"rule": 7}}):
        assert read_reason(field) is None


def test_a_place_is_told_in_one_text() -> None:
    assert [str(place) for place in (Place("a.jsonl", 3), Place(id="gen-0-1"), Place("runs/a", id="gen-0-1"))] == [
        "a.jsonl:3",
        "gen-0-1",
        "runs/a:gen-0-1",
    ]
