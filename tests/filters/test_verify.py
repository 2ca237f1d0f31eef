from selfinstruct_local.filters.decide import Decider
from selfinstruct_local.filters.verify import DecisionLog
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.task import Task, Verdict
from tests.filters.test_decide import instructions


def log_of(texts: list[str], tamper: int | None = None) -> DecisionLog:
    verdicts = Decider((), NoveltyIndex()).decide([Task(text) for text in texts])
    if tamper is not None:
        verdicts[tamper] = Verdict(keep=not verdicts[tamper].keep, rule="not_novel")
    log = DecisionLog()
    log.add_decided(texts, verdicts)
    return log


def test_true_decisions_are_confirmed() -> None:
    result = log_of(instructions(120, seed=2)).verify(200, threshold=0.7)
    assert (result.pairs, result.decisions, result.disagreements) == (200, 120, [])


def test_a_false_decision_is_found() -> None:
    texts = instructions(120, seed=2)
    result = log_of(texts, tamper=60).verify(0, threshold=0.7)
    assert any(repr(texts[60]) in line for line in result.disagreements)
    assert "differ" in result.describe()


def test_another_threshold_is_found_out() -> None:
    assert log_of(instructions(120, seed=2)).verify(0, threshold=0.6).disagreements
