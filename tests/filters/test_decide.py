import random
from collections.abc import Sequence

import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.filters.decide import NOT_NOVEL, Decider
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.task import Task

SCORER = RougeScorer(["rougeL"])


def instructions(count: int, seed: int) -> list[str]:
    """Sentences of 5 to 12 words; most are older ones with a few words changed."""
    stream = random.Random(seed)
    words = [f"w{number}" for number in range(40)]
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and stream.random() < 0.8:
            text = list(stream.choice(texts))
            for _ in range(stream.randrange(1, 4)):
                text[stream.randrange(len(text))] = stream.choice(words)
        else:
            text = stream.choices(words, k=stream.randrange(5, 13))
        texts.append(text)
    return [" ".join(text) for text in texts]


def published_greedy(texts: list[str], threshold: float, known: Sequence[str] = ()) -> list[tuple[int, float] | None]:
    """What google's rouge_score decides: None for kept, else the nearest kept one and its score."""
    pool = list(known)
    decisions: list[tuple[int, float] | None] = []
    for text in texts:
        scores = [SCORER.score(old, text)["rougeL"].fmeasure for old in pool]
        best = max(scores, default=0.0)
        if best > threshold:
            decisions.append((scores.index(best), best))
        else:
            decisions.append(None)
            pool.append(text)
    return decisions


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_decides_as_rouge_score_does(threshold: float) -> None:
    texts = instructions(300, seed=1)
    expected = published_greedy(texts, threshold)
    assert sum(each is not None for each in expected) > 50
    tasks = [Task.single(text, "", "out") for text in texts]
    verdicts = Decider((), NoveltyIndex(threshold=threshold)).decide(tasks)
    assert [None if each.keep else (each.neighbor, each.score) for each in verdicts] == expected


def test_what_a_rule_refuses_does_not_join_the_pool() -> None:
    decider = Decider(rule_set("alpaca"), NoveltyIndex())
    bad = Task.single("Draw the long river Nile", "", "ok")
    good = Task.single("Trace the long river Nile", "", "ok")
    verdicts = decider.decide([bad, good, good])
    assert [verdict.rule for verdict in verdicts] == ["unsuitable_word", "", NOT_NOVEL]
    assert verdicts[2].neighbor == 0
