"""The MinHash prefilter: signatures against a plain twin, bands against datasketch, recall against the exact answer."""

import math
import random

import numpy as np
import pytest

from selfinstruct_local.kernels import NoveltyIndex, encode, minhash, novelty
from selfinstruct_local.kernels.index import BandIndex
from tests.kernels import oracles

MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def plain_token_hash(token: str) -> int:
    digest = 0xCBF29CE484222325
    for byte in token.encode():
        digest = ((digest ^ byte) * 0x9E3779B97F4A7C15) & MASK64
        digest ^= digest >> 29
    return digest


def plain_signature(row: list[str], a: list[int], b: list[int]) -> list[int]:
    elements = []
    for token, occurrence in oracles.occurrences(row):
        mixed = (plain_token_hash(token) + occurrence * 0xD6E8FEB86659FD93) & MASK64
        mixed ^= mixed >> 33
        mixed = (mixed * 0xFF51AFD7ED558CCD) & MASK64
        mixed ^= mixed >> 33
        elements.append(mixed & MASK32)
    return [min([MASK32, *(((x * h) + y) & MASK32 for h in elements)]) for x, y in zip(a, b, strict=True)]


def pool_of(index: NoveltyIndex) -> BandIndex:
    assert isinstance(index._index, BandIndex)
    return index._index


def test_signatures_match_the_plain_twin() -> None:
    rows = [*oracles.near_copies(5, 200), ["a"] * 5, [], ["x", "y", "x"]]
    bands = minhash.Bands(7, 3)
    a, b = minhash.permutations(21, 9)
    got = minhash.signatures(encode([" ".join(row) for row in rows]), bands, 9)
    assert got.dtype == np.uint32
    for row, values in zip(rows, got.tolist(), strict=True):
        assert values == plain_signature(row, a.tolist(), b.tolist())


def test_signatures_agree_between_vocabularies() -> None:
    first = minhash.signatures(encode(["one two three", "four five"]), minhash.Bands(4, 3), 1)
    other = minhash.signatures(encode(["zz five four", "four five", "three two one"]), minhash.Bands(4, 3), 1)
    assert np.array_equal(first[1], other[1])
    assert np.array_equal(first[0], other[2])


def test_f_above_the_threshold_bounds_jaccard() -> None:
    rng = random.Random(2)
    rows = oracles.near_copies(6, 400)
    for threshold in (0.3, 0.7, 0.9):
        bound = minhash.jaccard_bound(threshold)
        for _ in range(3000):
            a = rng.choice(rows)
            b = oracles.altered(rng, a, oracles.words(50), rng.randrange(6))
            if oracles.score(a, b) > threshold:
                assert oracles.jaccard(a, b) > bound - 1e-12


def test_bands_follow_from_threshold_and_recall() -> None:
    assert minhash.jaccard_bound(0.7) == pytest.approx(0.538, abs=1e-3)
    assert minhash.bands_needed(0.7, 0.999, 3) == 41
    for threshold in (0.05, 0.3, 0.7, 0.95, 1.0):
        for recall in (0.5, 0.9, 0.999, 0.999999):
            for pool in (1, 10_000, 10**7):
                bands = minhash.choose_bands(threshold, recall, pool)
                agree = minhash.jaccard_bound(threshold) ** bands.rows
                assert agree >= 1 or 1 - (1 - agree) ** bands.bands >= recall - 1e-9
    assert minhash.choose_bands(0.7, 0.999, 1000).rows < minhash.choose_bands(0.7, 0.999, 1_000_000).rows


def test_candidates_are_datasketchs(corpus: list[list[str]]) -> None:
    """The same signatures in `MinHashLSH` give the same candidates, for the pool and for strangers."""
    texts = [" ".join(row) for row in corpus[:1500]]
    index = NoveltyIndex(prefilter="minhash", recall=0.99, seed=4)
    index.add(texts[:1000])
    compiled = pool_of(index)
    batch = encode(texts, "rouge", index.vocabulary)
    index._state.make_room(batch, adding=False)
    compiled.prepare(index._state, batch, adding=False)
    marked = compiled.candidates(index._state, batch)
    lsh = minhash.datasketch_lsh(compiled.bands)
    signatures = minhash.signatures(batch, compiled.bands, 4)
    for i in range(1000):
        if corpus[i]:
            lsh.insert(i, minhash.Signature(signatures[i]))
    for i, row in enumerate(corpus[:1500]):
        expected = sorted(lsh.query(minhash.Signature(signatures[i]))) if row else []
        assert np.flatnonzero(marked[i]).tolist() == expected
    assert 0 < marked.mean() < 0.5


def test_datasketch_storage_decides_like_the_table(corpus: list[list[str]]) -> None:
    texts = [" ".join(row) for row in corpus[:600]]
    shared = NoveltyIndex(prefilter="minhash", lsh_storage={"type": "dict"})
    table, exact = NoveltyIndex(prefilter="minhash"), NoveltyIndex()
    a, b, c = shared.filter(texts), table.filter(texts), exact.filter(texts)
    for other in (b, c):
        assert np.array_equal(a.kept, other.kept)
        assert np.array_equal(a.score, other.score, equal_nan=True)
    assert np.array_equal(shared.check(texts).kept, table.check(texts).kept)
    assert sum(r.pairs - r.found for r in shared.measure_recall(texts[:50])) == 0


def test_mean_recall_over_ten_seeds(corpus: list[list[str]]) -> None:
    texts = [" ".join(row) for row in corpus[:3000]]
    pairs, found = np.zeros(3), np.zeros(3)
    for seed in range(10):
        index = NoveltyIndex(prefilter="minhash", seed=seed)
        index.add(texts[:2000])
        report = index.measure_recall(texts[2000:])
        pairs += [bin_.pairs for bin_ in report]
        found += [bin_.found for bin_ in report]
    assert pairs.min() > 1000
    assert found.sum() / pairs.sum() >= 0.999
    assert (found / pairs).min() >= 0.999
    assert [(r.low, r.high) for r in report] == [(0.7, 0.75), (0.75, 0.85), (0.85, 1.0)]


def test_recall_report_of_exact_is_complete() -> None:
    index = NoveltyIndex()
    index.add(["a b c d", "w x y z"])
    assert [(r.pairs, r.found) for r in index.measure_recall(["a b c d", "q"])] == [(0, 0), (0, 0), (1, 1)]


def test_recall_is_the_same_however_many_pairs_are_scored_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(tokens) for tokens in oracles.near_copies(3, 600)]
    index = NoveltyIndex(0.5, prefilter="minhash", recall=0.7)
    index.add(texts[:400])
    whole = index.measure_recall(texts[400:])
    assert sum(each.pairs for each in whole) > sum(each.found for each in whole) > 0
    for pairs in (1, 3 * 400, 7 * 400):
        monkeypatch.setattr(novelty, "_RECALL_PAIRS", pairs)
        assert index.measure_recall(texts[400:]) == whole


def test_decisions_are_never_false_rejections(corpus: list[list[str]]) -> None:
    """What minhash rejects, it rejects for a true score above the threshold."""
    texts = [" ".join(row) for row in corpus[:1500]]
    index = NoveltyIndex(prefilter="minhash", recall=0.5)
    result = index.filter(texts)
    members = [row for row, kept in zip(corpus[:1500], result.kept, strict=True) if kept]
    for row, kept, neighbor, score in zip(corpus[:1500], *result, strict=True):
        assert kept == math.isnan(score)
        if not kept:
            assert score == oracles.score(row, members[neighbor]) > 0.7
