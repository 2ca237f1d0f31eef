"""n-gram hashes and overlap, against Python sets."""

import random

import pytest

from selfinstruct_local.kernels import encode
from selfinstruct_local.kernels.ngrams import NgramSet, ngram_hashes
from tests.kernels import oracles


def grams(row: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_hashes_are_equal_where_ngrams_are(n: int) -> None:
    rng = random.Random(n)
    rows = [rng.choices(oracles.words(5), k=rng.randrange(40)) for _ in range(200)]
    hashes, offsets = ngram_hashes([" ".join(row) for row in rows], n)
    plain = [gram for row in rows for gram in grams(row, n)]
    assert offsets[-1] == len(plain) == hashes.size
    named: dict[tuple[str, ...], int] = {}
    for gram, value in zip(plain, hashes.tolist(), strict=True):
        assert named.setdefault(gram, value) == value
    assert len(set(named.values())) == len(named)


def test_overlap_counts_shared_ngrams() -> None:
    rng = random.Random(1)
    evaluation = [rng.choices(oracles.words(40), k=rng.randrange(5, 40)) for _ in range(50)]
    training = [rng.choices(oracles.words(40), k=20) for _ in range(50)]
    training += [row[:3] + rng.choice(evaluation) + ["tail"] for row in training[:40]]
    found = NgramSet([" ".join(row) for row in evaluation], 8)
    known = {gram for row in evaluation for gram in grams(row, 8)}
    assert len(found) == len(known)
    assert found.too_short == sum(len(row) < 8 for row in evaluation)
    expected = [sum(gram in known for gram in grams(row, 8)) for row in training]
    assert found.overlap([" ".join(row) for row in training]).tolist() == expected
    assert found.overlap(encode([" ".join(row) for row in training])).tolist() == expected
    assert max(expected) > 0
    assert found.overlap([]).size == 0


def test_bad_n() -> None:
    with pytest.raises(ValueError, match="n must be"):
        NgramSet(["a"], 0)
