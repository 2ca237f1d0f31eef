"""LCS, F and the bound, against plain twins and `rouge_score` itself."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_local.kernels import NoveltyIndex, encode, rouge_l, rouge_l_matrix
from selfinstruct_local.kernels.bounds import BUCKETS, bucket_floor, bucket_of
from selfinstruct_local.kernels.index import State
from tests.kernels import oracles

LENGTHS = (0, 1, 2, 63, 64, 65, 127, 128, 129)
PAIRS = 100_000 if oracles.SOAK else 8_000


def boundary_triples(longest: int) -> list[tuple[int, int, int]]:
    """(m, n, lcs) whose real-number F is 0.7 exactly: 20 lcs = 7 (m + n)."""
    return [
        (m, n, 7 * (m + n) // 20)
        for m in range(1, longest + 1)
        for n in range(1, longest + 1)
        if 7 * (m + n) % 20 == 0 and 7 * (m + n) // 20 <= min(m, n)
    ]


def pair_with(m: int, n: int, common: int) -> tuple[str, str]:
    """Two texts of m and n tokens with an LCS of `common`."""
    shared = [f"s{i}" for i in range(common)]
    a = shared + [f"a{i}" for i in range(m - common)]
    b = [f"b{i}" for i in range(n - common)] + shared
    return " ".join(a), " ".join(b)


def test_there_are_531_boundary_triples_and_272_evaluate_above() -> None:
    triples = boundary_triples(150)
    assert len(triples) == 531
    assert sum(oracles.f_measure(lcs, m, n) > 0.7 for m, n, lcs in triples) == 272


@pytest.mark.parametrize("prefilter", ["exact", "none"])
def test_boundary_triples_are_decided_by_float64(prefilter: str) -> None:
    for m, n, common in boundary_triples(150):
        expected = oracles.f_measure(common, m, n)
        for a, b in (pair_with(m, n, common), pair_with(m, n, common)[::-1]):
            assert rouge_l(a, b) == expected
        index = NoveltyIndex(0.7, prefilter)  # type: ignore[arg-type]
        index.add([a])
        result = index.check([b])
        assert bool(result.kept[0]) == (not expected > 0.7), (m, n, common)
        if not result.kept[0]:
            assert result.score[0] == expected


def test_boundary_score_is_rouge_scores_own() -> None:
    for m, n, common in random.Random(0).sample(boundary_triples(60), 25):
        a, b = pair_with(m, n, common)
        assert rouge_l(a, b) == oracles.rouge_l(a, b)


@pytest.mark.parametrize("m", LENGTHS)
@pytest.mark.parametrize("n", LENGTHS)
def test_word_boundaries(m: int, n: int) -> None:
    rng = random.Random(1000 * m + n)
    for alphabet in ("ab", "abcdefghijklmnop"):
        a, b = rng.choices(alphabet, k=m), rng.choices(alphabet, k=n)
        assert rouge_l(" ".join(a), " ".join(b)) == oracles.score(a, b)
    same = rng.choices("abc", k=m)
    assert rouge_l(" ".join(same), " ".join(same)) == (1.0 if m else 0.0)


def test_five_thousand_tokens() -> None:
    rng = random.Random(5)
    a = rng.choices(oracles.words(300), k=5000)
    for b in (rng.choices(oracles.words(300), k=900), oracles.altered(rng, a, oracles.words(300), 1500)[:2500], a[:1]):
        expected = oracles.score(a, b)
        assert rouge_l(" ".join(a), " ".join(b)) == expected
        assert rouge_l(" ".join(b), " ".join(a)) == expected


def test_hundred_thousand_tokens_are_answered() -> None:
    row = [f"w{i % 977}" for i in range(100_000)]
    text = " ".join(row)
    assert rouge_l(text, text) == 1.0
    assert rouge_l(text, " ".join(row[:50])) == oracles.f_measure(50, 100_000, 50)


def test_random_pairs_match_the_twin_bit_for_bit() -> None:
    """All pairs of random rows: both roles, many lengths, few and many distinct tokens."""
    rng = random.Random(7)
    side = int(PAIRS**0.5) + 1
    rows = [rng.choices(oracles.words(rng.choice([2, 6, 30])), k=rng.randrange(40)) for _ in range(side)]
    rows[3] = rng.choices(oracles.words(6), k=90)
    got = rouge_l_matrix([" ".join(row) for row in rows], [" ".join(row) for row in rows], threads=1)
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert got[i, j] == oracles.score(a, b), (a, b)


TEXTS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=60), min_size=10, max_size=10)


@settings(max_examples=1000 if oracles.SOAK else 30, deadline=None)
@given(TEXTS, TEXTS)
def test_hypothesis_pairs_match_rouge_score(left: list[list[str]], right: list[list[str]]) -> None:
    """A hundred pairs an example: 100,000 in a soak."""
    ours = rouge_l_matrix([" ".join(row) for row in left], [" ".join(row) for row in right], threads=1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            assert ours[i, j] == oracles.rouge_l(" ".join(a), " ".join(b))
    assert rouge_l(" ".join(left[0]), " ".join(right[0])) == ours[0, 0] == oracles.score(left[0], right[0])


def test_matrix_takes_encoded_and_any_threads() -> None:
    rows = [" ".join(row) for row in oracles.near_copies(3, 300)]
    expected = rouge_l_matrix(rows, rows[:100], threads=1)
    both = encode(rows)
    assert np.array_equal(rouge_l_matrix(both, rows[:100], threads=2), expected)
    assert np.array_equal(rouge_l_matrix(rows, encode(rows[:100]), threads=3), expected)
    assert np.array_equal(rouge_l_matrix(both, encode(rows[:100]), threads=16), expected)
    assert rouge_l_matrix([], rows).shape == (0, 300)
    assert rouge_l_matrix(rows, []).shape == (300, 0)
    with pytest.raises(ValueError, match="threads"):
        rouge_l_matrix(rows, rows, threads=0)


def test_rouge_l_refuses_what_is_no_text() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        rouge_l("a", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one text"):
        rouge_l("a", encode(["a", "b"]))
    assert rouge_l("", "") == rouge_l("...", "a") == 0.0


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 1.0])
def test_need_is_monotone_and_the_plan_follows_it(threshold: float) -> None:
    """The two facts the proof in kernels/README.md takes for granted, and what the index makes of them."""
    longest = 128
    need = [[oracles.need(m, n, threshold) for n in range(1, longest + 1)] for m in range(1, longest + 1)]
    for m in range(longest - 1):
        feasible = [n for n in range(longest) if need[m][n] <= min(m, n) + 1]
        assert feasible == list(range(feasible[0], feasible[-1] + 1)) if feasible else True
        for n in feasible:
            assert n + 1 not in feasible or need[m][n] <= need[m][n + 1]
            assert need[m + 1][n] >= need[m][n] or need[m + 1][n] > min(m + 1, n) + 1
    plan = State(threshold).plan
    for m in range(1, longest + 1):
        partners = [n for n in range(1, longest + 1) if need[m - 1][n - 1] <= min(m, n)]
        expected = [m - need[m - 1][m - 1] + 1, m - need[m - 1][partners[0] - 1] + 1] if partners else [0, 0]
        assert plan.depth[m].tolist() == expected
        for n in range(1, 33):
            least = need[m - 1][n - 1]
            possible = least <= min(m, n)
            assert plan.prefix[m, n - 1] == (m - least + 1 if possible else 0)
            assert plan.distance[m, n - 1] == (m + n - 2 * least if possible else -1)
        assert plan.widest[m].tolist() == np.maximum.accumulate(plan.distance[m]).tolist()


def test_buckets_divide_the_lengths() -> None:
    """Every length lies in one bucket, between its floor and the next, in order."""
    floors = [bucket_floor.py_func(b) for b in range(BUCKETS)]
    assert floors == sorted(set(floors))
    for n in [*range(1, 10_000), 10**6]:
        bucket = bucket_of.py_func(n)
        assert floors[bucket] <= n
        assert bucket == BUCKETS - 1 or n < floors[bucket + 1]
