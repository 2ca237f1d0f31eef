"""All near pairs, whole or in parts, and what a greedy pass makes of them, against plain Python and the index."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.kernels import NoveltyIndex, encode
from selfinstruct_local.kernels.bands import band_digests, band_pairs
from selfinstruct_local.kernels.greedy import refuse
from selfinstruct_local.kernels.minhash import Bands
from selfinstruct_local.kernels.pairs import Pairs, Texts, join, near_pairs, route, take
from tests.kernels import oracles

THRESHOLDS = st.sampled_from([0.3, 0.5, 2 / 3, 0.7, 0.9, 1.0])
# Few words, so that much is near; short and long texts beside each other.
LISTS = st.lists(st.lists(st.integers(0, 11), max_size=9) | st.lists(st.integers(0, 5), max_size=90), max_size=24)
Found = set[tuple[int, int, float]]


def ranked(lists: Sequence[Sequence[object]]) -> tuple[Texts, int]:
    """The texts with their tokens numbered from the rarest, and how many tokens there are."""
    texts = encode([" ".join(f"w{token}" for token in tokens) for tokens in lists])
    counts = np.bincount(texts.ids, minlength=len(texts.vocabulary))
    rank = np.empty(counts.size, np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(counts.size, dtype=np.int32)
    return Texts(rank[texts.ids], texts.offsets), counts.size


def as_set(pairs: Pairs) -> Found:
    found = list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.score.tolist(), strict=True))
    assert len(set(found)) == len(found), "a pair was reported twice"
    return set(found)


def expected(lists: Sequence[Sequence[object]], threshold: float) -> Found:
    """By dynamic programming, every pair; of equal texts all but the first with the first alone."""
    first = [lists.index(tokens) for tokens in lists]
    found = set()
    for a, b in combinations(range(len(lists)), 2):
        m, n = len(lists[a]), len(lists[b])
        score = oracles.f_measure(oracles.lcs(lists[a], lists[b]), m, n) if m and n else 0.0
        distinct = first[a] == a and first[b] == b
        if score > threshold and (distinct or first[b] == a):
            found.add((a, b, score))
    return found


@given(LISTS, THRESHOLDS)
def test_every_near_pair_is_found_once(lists: list[list[int]], threshold: float) -> None:
    texts, vocabulary = ranked(lists)
    assert as_set(near_pairs(texts, threshold, np.ones(vocabulary, np.bool_))) == expected(lists, threshold)


@given(LISTS, THRESHOLDS, st.integers(1, 6))
def test_parts_find_together_what_one_finds_alone(lists: list[list[int]], threshold: float, parts: int) -> None:
    texts, vocabulary = ranked(lists)
    part_of = ((np.arange(vocabulary, dtype=np.int64) * 7919) % 104729 % parts).astype(np.int32)
    rows, owners = route(texts, threshold, part_of)
    assert (np.diff(rows) >= 0).all()
    found = []
    for part in range(parts):
        mine = rows[owners == part]
        pairs = near_pairs(take(texts, mine), threshold, part_of == part)
        found.append(Pairs(mine[pairs.left], mine[pairs.right], pairs.score))
    assert as_set(join(found)) == expected(lists, threshold)


def test_many_copies_of_one_text_make_few_pairs() -> None:
    lists = [["a", "b", "c", "d"]] * 3000 + [["a", "b", "c", "e"]] * 3000
    texts, vocabulary = ranked(lists)
    pairs = near_pairs(texts, 0.7, np.ones(vocabulary, np.bool_))
    assert pairs.left.size == 2 * 2999 + 1
    refused = refuse(pairs)
    assert refused.key.tolist() == list(range(1, 6000))
    assert set(refused.neighbor.tolist()) == {0}


def test_more_pairs_than_texts_are_found_too(corpus: list[list[str]]) -> None:
    lists = [list(tokens) for tokens in corpus[:400]]
    texts, vocabulary = ranked(lists)
    pairs = near_pairs(texts, 0.1, np.ones(vocabulary, np.bool_))
    assert pairs.left.size > 10 * len(lists)
    words = [[f"w{token}" for token in tokens] for tokens in lists]
    assert as_set(pairs) == expected(words, 0.1)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_a_greedy_pass_over_the_pairs_is_the_index_s(corpus: list[list[str]], threshold: float) -> None:
    lists = [list(tokens) for tokens in corpus]
    texts, vocabulary = ranked(lists)
    refused = refuse(near_pairs(texts, threshold, np.ones(vocabulary, np.bool_)))
    result = NoveltyIndex(threshold).filter([" ".join(f"w{token}" for token in tokens) for tokens in lists])
    gone = np.flatnonzero(~result.kept)
    assert gone.size > 100
    positions = np.cumsum(result.kept) - 1
    assert refused.key.tolist() == gone.tolist()
    assert positions[refused.neighbor].tolist() == result.neighbor[gone].tolist()
    assert refused.score.tolist() == result.score[gone].tolist()


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.71, 0.8, 0.9])), max_size=60),
    st.integers(0, 8),
)
def test_the_kept_set_is_what_taking_one_after_the_other_keeps(edges: list[tuple[int, int, float]], known: int) -> None:
    near = {(min(a, b), max(a, b)): score for a, b, score in edges if a != b}
    left, right = np.array([*near, (0, 0)], np.int64)[:-1].T.reshape(2, -1)
    refused = refuse(Pairs(left, right, np.array(list(near.values()))), known)
    kept: list[int] = []
    gone = {}
    for node in range(21):
        scores = {other: near[other, node] for other in kept if (other, node) in near}
        if scores and node >= known:
            best = max(scores, key=lambda other: (scores[other], -other))
            gone[node] = (best, scores[best])
        else:
            kept.append(node)
    told = zip(refused.key.tolist(), refused.neighbor.tolist(), refused.score.tolist(), strict=True)
    assert {key: (neighbor, score) for key, neighbor, score in told} == gone


def test_a_refused_text_refuses_nobody_and_its_copies_fare_as_it_did() -> None:
    # 0 is near 1, 1 is near 2, and 3 is a copy of 1 that comes after 2, to which it is nearer.
    pairs = Pairs(np.array([0, 1, 1]), np.array([1, 2, 3]), np.array([0.75, 0.9, 1.0]))
    refused = refuse(pairs)
    assert refused.key.tolist() == [1, 3]
    assert refused.neighbor.tolist() == [0, 2]
    assert refused.score.tolist() == [0.75, 0.9]


@given(LISTS, st.sampled_from([0.5, 0.7]))
def test_bands_find_near_pairs_alone_and_each_once(lists: list[list[int]], threshold: float) -> None:
    texts, vocabulary = ranked(lists)
    digests = band_digests(texts, vocabulary, Bands(60, 1), seed=1)
    found = as_set(band_pairs(texts, digests, vocabulary, threshold))
    assert found <= expected(lists, threshold)
    # Sixty bands of one value miss a pair above 0.7 once in 10**20.
    if threshold == 0.7:
        assert found == expected(lists, threshold)


def test_bands_of_two_parts_find_together_what_one_finds(corpus: list[list[str]]) -> None:
    texts, vocabulary = ranked([list(tokens) for tokens in corpus])
    digests = band_digests(texts, vocabulary, Bands(8, 2), seed=1)
    whole = as_set(band_pairs(texts, digests, vocabulary, 0.7))
    halves = [as_set(band_pairs(texts, part, vocabulary, 0.7)) for part in (digests[:, :3], digests[:, 3:])]
    assert whole == halves[0] | halves[1]
    by_value = [np.where(digests % np.uint64(2) == odd, digests, 0) for odd in range(2)]
    found = [as_set(band_pairs(texts, part, vocabulary, 0.7)) for part in by_value]
    assert all(len(part) > len(whole) / 4 for part in found)
    assert whole == found[0] | found[1]
