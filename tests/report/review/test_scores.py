"""Scores against values computed by hand, and what is refused."""

from typing import Any

import pytest

from selfinstruct_local.report.review.files import Key, KeyItem, KeySource, Labels, Question
from selfinstruct_local.report.review.scores import (
    ALL_READERS,
    Scores,
    cohens_kappa,
    make_scores,
    read_reading,
    wilson,
)

ORDER = ["a", "b", "c", "d", "e"]


def answers(text: str) -> dict[Question, bool | None]:
    """`yn-` for yes, no and no answer yet; one letter for a bare instruction."""
    said = {"y": True, "n": False, "-": None}
    names: tuple[Question, ...] = ("instruction", "input", "output")
    return {name: said[letter] for name, letter in zip(names, text, strict=False)}


def labels(reader: str, texts: list[str], **notes: str) -> Labels:
    return Labels(
        format="selfinstruct-review-labels",
        version=1,
        sample="s",
        reader=reader,
        saved="2026-01-01T00:00:00Z",
        answers={item: answers(text) for item, text in zip(ORDER, texts, strict=True)},
        notes=notes,
    )


def key(*items: dict[str, Any]) -> Key:
    blank = {
        "source": 0,
        "instance": 0,
        "profile": "alpaca",
        "classification": "no",
        "with_input": False,
        "stage": "accepted",
        "rule": "",
        "detail": "",
    }
    return Key(
        sample="s",
        seed=0,
        sources=[KeySource(name="one", kind="run"), KeySource(name="two", kind="file")],
        strata=[],
        items=[
            KeyItem.model_validate({**blank, "id": name, "record": name, "instruction": f"Do {name}", **item})
            for name, item in zip(ORDER, items, strict=True)
        ],
    )


def score(given: list[Labels], known: Key | None = None) -> Scores:
    return make_scores("s", ORDER, [read_reading(each, each.reader) for each in given], known)


def shares(scores: Scores, reader: str, by: str) -> dict[str, dict[str, tuple[int, int]]]:
    return {
        group.name: {question: share[:2] for question, share in group.shares.items()}
        for group in scores.groups[reader]
        if group.by == by
    }


@pytest.mark.parametrize(
    ("yes", "count", "low", "high"),
    [
        # By hand: z = 1.96, (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
        (8, 10, 0.4902, 0.9433),
        (27, 50, 0.4040, 0.6703),
        (1, 1, 0.2065, 1.0),
        (0, 20, 0.0, 0.1611),
        (50, 50, 0.9287, 1.0),
    ],
)
def test_the_wilson_interval(yes: int, count: int, low: float, high: float) -> None:
    share = wilson(yes, count)
    assert share[:2] == (yes, count)
    assert share.low == pytest.approx(low, abs=1e-4)
    assert share.high == pytest.approx(high, abs=1e-4)
    assert 0 <= share.low <= yes / count <= share.high <= 1


def test_kappa_and_its_standard_error() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5 x 0.6 + 0.5 x 0.4 = 0.5, kappa 0.4.

    The terms of its variance: 0.4 (1 - 1.1 x 0.6)^2 + 0.3 (1 - 0.9 x 0.6)^2 = 0.10972 for the same answers,
    0.6^2 (0.1 x 1.1^2 + 0.2 x 0.9^2) = 0.10188 for different ones, less (0.4 - 0.5 x 0.6)^2 = 0.01. The variance is
    0.2016 / (50 x 0.5^2) = 0.016128.
    """
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = cohens_kappa(pairs)
    assert found[:2] == (50, 35)
    assert found.kappa == pytest.approx(0.4)
    half = 1.959964 * 0.016128**0.5
    assert found.low == pytest.approx(0.4 - half, abs=1e-6)
    assert found.high == pytest.approx(0.4 + half, abs=1e-6)


def test_kappa_at_its_ends() -> None:
    assert cohens_kappa([(True, True), (False, False)])[2:] == (1, 1, 1)
    assert cohens_kappa([(True, False), (False, True)]).kappa == -1
    # One answer throughout leaves nothing to agree on beyond chance.
    assert cohens_kappa([(True, True)] * 9) == (9, 9, None, None, None)
    assert cohens_kappa([]) == (0, 0, None, None, None)
    # One reader with one answer throughout: no better than chance.
    assert cohens_kappa([(True, True), (True, False), (True, True)]).kappa == pytest.approx(0)


def test_shares_count_finished_items_only() -> None:
    scores = score([labels("Ann", ["yyy", "yny", "nnn", "yy-", "y"])])
    (reading,) = scores.readings
    assert (len(reading.finished), reading.unfinished) == (4, 1)
    # The bare instruction e has no other question, and all of its questions have a yes.
    wanted = {"instruction": (3, 4), "input": (1, 3), "output": (2, 3), "all": (2, 4)}
    assert shares(scores, "Ann", "tasks") == {"all": wanted}
    assert not scores.agreements
    assert not scores.disagreements


def test_groups_by_where_tasks_come_from() -> None:
    known = key(
        {"with_input": True},
        {"classification": "yes", "profile": "magpie"},
        {"source": 1, "profile": ""},
        {"stage": "rules", "rule": "copied"},
        {"stage": "novelty", "rule": "not_novel"},
    )
    scores = score([labels("Ann", ["yyy", "yyn", "yyy", "nnn", "yyy"])], known)
    all_of = {
        by: {name: counts["all"] for name, counts in shares(scores, "Ann", by).items()}
        for by in ("tasks", "source", "profile", "classification", "input", "stage", "rule")
    }
    assert all_of == {
        "tasks": {"accepted": (2, 3), "rejected": (1, 2)},
        "source": {"one": (1, 2), "two": (1, 1)},
        "profile": {"alpaca": (1, 1), "magpie": (0, 1), "not said": (1, 1)},
        "classification": {"no": (2, 2), "yes": (0, 1)},
        "input": {"yes": (1, 1), "no": (1, 2)},
        "stage": {"rules": (0, 1), "novelty": (1, 1)},
        "rule": {"copied": (0, 1), "not_novel": (1, 1)},
    }
    rightly = {group.name: group.rightly_rejected for group in scores.groups["Ann"] if group.by == "rule"}
    assert {name: share[:2] for name, share in rightly.items() if share} == {"copied": (1, 1), "not_novel": (0, 1)}
    assert all(group.rightly_rejected is None for group in scores.groups["Ann"] if group.by == "source")


def test_two_readers_agree_and_differ() -> None:
    ann = labels("Ann", ["yyy", "yny", "nnn", "yyy", "yyy"], b="the input is empty")
    bob = labels("Bob", ["yyy", "yyy", "nnn", "yyn", "---"])
    scores = score([ann, bob])
    assert [each.reader for each in scores.readings] == ["Ann", "Bob", ALL_READERS]
    (agreement,) = scores.agreements
    # Output, items a to d: yes-yes, yes-yes, no-no, yes-no.
    output = agreement.kappas["output"]
    assert output[:2] == (4, 3)
    assert output.kappa == pytest.approx((0.75 - (0.75 * 0.5 + 0.25 * 0.5)) / 0.5)
    assert agreement.kappas["instruction"].kappa == 1
    assert [(each.number, each.id) for each in scores.disagreements] == [(2, "b"), (4, "d")]
    assert scores.disagreements[0].notes == {"Ann": "the input is empty"}
    assert shares(scores, ALL_READERS, "tasks")["all"] == {
        "instruction": (3, 4),
        "input": (2, 4),
        "output": (2, 4),
        "all": (1, 4),
    }
    assert scores.readings[2].unfinished == 1


def test_several_readers_must_agree_that_a_task_is_rightly_rejected() -> None:
    known = key(*[{"stage": "rules", "rule": "copied"}] * 5)
    scores = score(
        [labels("A", ["yyy", "yyn", "yyn", "yyy", "nnn"]), labels("B", ["yyy", "yyy", "nyy", "yyn", "nnn"])], known
    )
    (found,) = [each for each in scores.groups[ALL_READERS] if each.by == "rule"]
    assert found.rightly_rejected
    assert found.rightly_rejected[:2] == (2, 5)
    assert found.shares["all"][:2] == (1, 5)


def test_three_readers_are_compared_in_pairs() -> None:
    given = [labels(name, [text] * 5) for name, text in (("A", "yyy"), ("B", "yyn"), ("C", "yyy"))]
    scores = score(given)
    assert [each.readers for each in scores.agreements] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert len(scores.disagreements) == 5


def test_labels_of_nothing_finished_give_no_share() -> None:
    scores = score([labels("Ann", ["---"] * 5)])
    assert scores.groups["Ann"] == []
    assert scores.record()["readers"][0]["unfinished"] == 5
