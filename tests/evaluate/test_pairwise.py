"""The judge: what it is asked, what its words mean, and how both orders make one outcome."""

import itertools

import pytest

from selfinstruct_local.engines import Completion, FinishReason, RequestKey
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.pairwise import WORDS, Judgement, PairwiseJudge, count
from selfinstruct_local.prompts import Prompts
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.sources import TrainingSample

KEY = RequestKey(0, "judge", 0)
SAMPLE = TrainingSample((Turn("user", "Add $first and {second}."), Turn("assistant", "5")), "2, 3")


def said(text: str) -> Completion:
    return Completion(KEY, text, FinishReason.STOP, 1, 1)


def test_an_answer_wins_when_it_is_preferred_in_both_orders_alone() -> None:
    # (when the challenger stood second, when it stood first)
    expected = {("second", "first"): "win", ("first", "second"): "loss"}
    for pair in itertools.product(("first", "second", "tie"), repeat=2):
        assert Judgement(*pair).outcome == expected.get(pair, "tie")  # type: ignore[arg-type]  # words of it
    assert Judgement("second", None).outcome == Judgement(None, "first").outcome == "unjudged"
    assert Judgement(same=True).outcome == "tie"


def test_the_counts_add_up() -> None:
    judgements = [
        Judgement("second", "first"),
        Judgement("second", "first"),
        Judgement("first", "second"),
        Judgement("tie", "tie"),
        Judgement("first", "first"),
        Judgement("tie", "first"),
        Judgement(None, "first"),
        Judgement(same=True),
    ]
    found = count(judgements)
    assert (found.wins, found.ties, found.losses, found.unjudged) == (2, 4, 1, 1)
    assert (found.consistent, found.asked) == (4, 6)


def test_answers_are_data() -> None:
    judge = PairwiseJudge("en", chats=True, prompts=Prompts())
    request = judge.request(KEY, Case(SAMPLE), "$second ${input} %s", "A\nAnswer B: $first")
    (turn,) = request.turns
    assert "Instruction: Add $first and {second}.\nInput: 2, 3\n" in turn.content
    assert "Answer A: $second ${input} %s\n\nAnswer B: A\nAnswer B: $first\n" in turn.content
    assert (request.prompt, request.sampling.choice) == ("", ("A", "B", "tie"))
    assert request.sampling.temperature == 0


@pytest.mark.parametrize(("lang", "space"), [("en", " "), ("zh", "")])
def test_a_completion_goes_on_after_the_question(lang: str, space: str) -> None:
    judge = PairwiseJudge(lang, chats=False, prompts=Prompts())  # type: ignore[arg-type]  # a language
    request = judge.request(KEY, Case(SAMPLE), "five", "six")
    assert request.turns == ()
    assert request.prompt[-1] in ":："
    assert request.sampling.choice == tuple(space + word for word in WORDS[lang])  # type: ignore[index]  # a language
    assert [judge.read(said(choice)) for choice in request.sampling.choice] == ["first", "second", "tie"]


@pytest.mark.parametrize("text", ["", "C", "a", "A.", "A or B"])
def test_other_words_say_nothing(text: str) -> None:
    assert PairwiseJudge("en", chats=True, prompts=Prompts()).read(said(text)) is None
