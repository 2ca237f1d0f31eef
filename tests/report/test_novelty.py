"""How near instructions are, against google's rouge_score pair by pair."""

import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.report import novelty
from selfinstruct_local.report.novelty import SimilarityScores, measure_similarity
from selfinstruct_local.seeds import seed_file

SEEDS = ["Write a poem about the sea.", "List three rivers.", "Add the two numbers."]


def instructions(count: int = 60) -> list[str]:
    words = sorted({word for seed in SEEDS for word in seed.strip(".").lower().split()})
    generator = random.Random(7)
    made = [" ".join(generator.choices(words, k=generator.randint(3, 12))) for _ in range(count)]
    return [*made, made[4], "!!!", ""]


def measured(*, run: bool, threshold: float = 0.7) -> SimilarityScores:
    return measure_similarity(SEEDS, instructions(), "rouge", threshold, seeds_stand_before=run)


def scores_of(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    scorer = RougeScorer(["rougeL"])
    return np.array([[scorer.score(other, one)["rougeL"].fmeasure for other in texts] for one in texts])


@pytest.mark.parametrize("cells", [64, 2_000_000])
@pytest.mark.parametrize("run", [True, False])
def test_scores_and_pairs_are_those_of_rouge_score(*, run: bool, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "_CELLS", cells)
    found = measured(run=run, threshold=0.6)
    texts = instructions()
    all_scores = scores_of([*SEEDS, *texts])
    assert found.to_seeds.tolist() == all_scores[3:, :3].max(axis=1).tolist()
    scores = all_scores if run else all_scores[3:, 3:]
    first = 3 if run else 0
    pairs = []
    for number in range(len(texts)):
        before = scores[first + number, : first + number]
        if not before.size:
            assert np.isnan(found.to_earlier[number])
            assert found.nearest[number] == -1
            continue
        assert found.to_earlier[number] == before.max()
        assert found.nearest[number] == int(before.argmax())
        under = np.where(before > 0.6, -1, before)
        if under.max() > 0:
            pairs.append((float(under.max()), first + number, int(under.argmax())))
    assert found.above == int((found.to_earlier > 0.6).sum()) > 0
    assert [tuple(pair) for pair in found.closest] == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:20]
    assert found.scanned == len(texts) - (not run)
    assert found.without_tokens == 2


def test_of_too_many_a_random_part_is_compared_with_all_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(run=True)
    monkeypatch.setattr(novelty, "MAX_PAIRS", 600)
    part = measured(run=True)
    known = np.isfinite(part.to_earlier)
    assert part.scanned == known.sum() == int(2 * 600 / 66)
    assert part.to_earlier[known].tolist() == whole.to_earlier[known].tolist()


@pytest.mark.parametrize("texts", [[], ["One."]])
def test_there_may_be_nothing_to_compare(texts: list[str]) -> None:
    found = measure_similarity([], texts, "rouge", 0.7, seeds_stand_before=False)
    assert (found.to_seeds.size, found.scanned, found.above, found.closest) == (0, 0, 0, ())


def test_seeds_of_chinese_are_compared_by_their_own_tokens() -> None:
    texts = [task.instruction for task in read_tasks(seed_file("zh"))]
    found = measure_similarity(texts, texts, "unicode", 0.7, seeds_stand_before=False)
    assert set(found.to_seeds.tolist()) == {1.0}
    assert found.without_tokens == 0
    assert found.above == 0
    assert len(found.closest) == 20
