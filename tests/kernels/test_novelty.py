"""`NoveltyIndex`: every prefilter against the published loop, batch against stream, bad input."""

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from selfinstruct_local.kernels import Encoded, FilterResult, NoveltyIndex, encode, scan
from tests.kernels import oracles

EXACT = ["exact", "none", "auto"]


def texts_of(rows: list[list[str]]) -> list[str]:
    """Texts with those tokens."""
    return [" ".join(row) for row in rows]


def joined(parts: list[FilterResult]) -> FilterResult:
    """The results of several batches as one."""
    return FilterResult(
        np.concatenate([np.empty(0, np.bool_), *(part.kept for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.neighbor for part in parts)]),
        np.concatenate([np.empty(0), *(part.score for part in parts)]),
    )


def all_scores(rows: list[list[str]]) -> Iterator[NDArray[np.float64]]:
    """For each row its ROUGE-L F with all rows, from rapidfuzz's LCS, in `rouge_score`'s float64 steps."""
    numbers: dict[str, int] = {}
    strings = ["".join(chr(0x100 + numbers.setdefault(token, len(numbers))) for token in row) for row in rows]
    lengths = np.array([len(row) for row in rows], np.float64)
    for start in range(0, len(rows), 1000):
        block = slice(start, start + 1000)
        common = cdist(strings[block], strings, scorer=LCSseq.similarity, dtype=np.int32).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall = common / lengths[block, None], common / lengths[None, :]
            yield from np.where(common > 0, 2 * precision * recall / (precision + recall), 0.0)


def assert_same(result: FilterResult, expected: tuple[list[bool], list[int], list[float | None]]) -> None:
    kept, neighbor, score = expected
    assert result.kept.tolist() == kept
    assert result.neighbor.tolist() == neighbor
    assert [None if math.isnan(x) else x for x in result.score.tolist()] == score


@pytest.mark.parametrize("threshold", [0.1, 0.35, 0.5, 0.7, 0.75, 0.9, 0.999, 1.0])
def test_greedy_matches_the_published_loop(threshold: float) -> None:
    rows = oracles.near_copies(int(threshold * 1000), 500)
    expected = oracles.greedy(rows, threshold)
    for prefilter in EXACT:
        index = NoveltyIndex(threshold, prefilter)  # type: ignore[arg-type]
        assert_same(index.filter(texts_of(rows)), expected)
        assert len(index) == sum(expected[0])


def test_near_copies_exact_none_and_the_loop_agree(corpus: list[list[str]]) -> None:
    count = 20_000 if oracles.SOAK else len(corpus)
    rows = oracles.near_copies(11, count)
    exact, none = NoveltyIndex(prefilter="exact"), NoveltyIndex(prefilter="none")
    a, b = exact.filter(texts_of(rows)), none.filter(texts_of(rows))
    assert np.array_equal(a.kept, b.kept)
    assert np.array_equal(a.neighbor, b.neighbor)
    assert np.array_equal(a.score, b.score, equal_nan=True)
    assert 0.2 < a.kept.mean() < 0.9
    # All pairs again with another library's LCS and numpy's float64, and pairs that matter with google's own code.
    rng = random.Random(5)
    pool: list[int] = []
    checked = 0
    for i, scores in enumerate(all_scores(rows)):
        seen = scores[pool]
        best = int(seen.argmax()) if pool else -1
        if pool and seen[best] > 0.7:
            assert (a.kept[i], a.neighbor[i], a.score[i]) == (False, best, seen[best])
        else:
            assert (a.kept[i], a.neighbor[i]) == (True, -1)
            pool.append(i)
        near = np.flatnonzero((scores[:i] > 0.6) & (scores[:i] < 0.8)).tolist()
        for j in rng.sample(near, min(len(near), 2)):
            assert oracles.rouge_l(" ".join(rows[i]), " ".join(rows[j])) == scores[j]
            checked += 1
    assert checked > count / 2


@pytest.mark.parametrize("seed", range(4))
def test_long_and_short_texts_mixed(seed: int) -> None:
    """Lengths across the word, bucket and plan boundaries, with copies of each."""
    rng = random.Random(seed)
    vocabulary = oracles.words(400)
    rows: list[list[str]] = []
    for length in [1, 2, 5, 31, 32, 33, 40, 47, 63, 64, 65, 100, 127, 128, 129, 150, 200, 260]:
        row = oracles.sentence(rng, vocabulary, length)
        rows += [
            row,
            *(oracles.altered(rng, row, vocabulary, round(length * share)) for share in (0.1, 0.2, 0.3, 0.35)),
        ]
        rows += [row + oracles.sentence(rng, vocabulary, int(length * share)) for share in (0.3, 0.6, 0.8, 0.9)]
        rows += [row[: max(1, int(length * share))] for share in (0.5, 0.54, 0.6, 0.8)]
    rng.shuffle(rows)
    assert_same(NoveltyIndex().filter(texts_of(rows)), oracles.greedy(rows, 0.7))


@settings(max_examples=1500 if oracles.SOAK else 150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=25),
    st.sampled_from([0.2, 0.5, 0.6, 0.7, 0.8, 1.0]),
    st.integers(1, 7),
)
def test_hypothesis_any_batches_give_the_loops_answer(rows: list[list[str]], threshold: float, step: int) -> None:
    expected = oracles.greedy(rows, threshold)
    for prefilter in ("exact", "none"):
        index = NoveltyIndex(threshold, prefilter)
        parts = [index.filter(texts_of(rows[i : i + step])) for i in range(0, len(rows), step)]
        assert_same(joined(parts), expected)


@pytest.mark.parametrize("prefilter", ["exact", "none", "minhash"])
def test_stream_is_batch(prefilter: str, corpus: list[list[str]]) -> None:
    texts = texts_of(corpus[:3000])
    batch, stream = NoveltyIndex(prefilter=prefilter, recall=0.99999), NoveltyIndex(prefilter=prefilter, recall=0.99999)  # type: ignore[arg-type]
    whole = batch.filter(texts)
    single = [stream.filter([text]) for text in texts]
    assert np.array_equal(whole.kept, np.concatenate([r.kept for r in single]))
    assert np.array_equal(whole.neighbor, np.concatenate([r.neighbor for r in single]))
    assert np.array_equal(whole.score, np.concatenate([r.score for r in single]), equal_nan=True)


def test_a_long_stream_outgrows_every_array() -> None:
    """New tokens all the time, many lists divided, the order sorted anew several times."""
    rng = random.Random(3)
    rows = []
    for i in range(4000):
        rows.append([f"n{i}", *oracles.sentence(rng, oracles.words(40), rng.randrange(3, 14))])
        if i % 5 == 0:
            rows.append(oracles.altered(rng, rng.choice(rows), oracles.words(40), 2))
    stream, none = NoveltyIndex(), NoveltyIndex(prefilter="none")
    at = 0
    results = []
    while at < len(rows):
        step = rng.choice([1, 1, 1, 17, 300])
        results.append(stream.filter(texts_of(rows[at : at + step])))
        at += step
    expected = none.filter(texts_of(rows))
    for k in range(3):
        assert np.array_equal(np.concatenate([r[k] for r in results]), expected[k], equal_nan=True)


def test_check_judges_without_adding(corpus: list[list[str]]) -> None:
    pool, queries = corpus[:800], corpus[800:1000]
    for prefilter in EXACT:
        index = NoveltyIndex(prefilter=prefilter)  # type: ignore[arg-type]
        index.add(texts_of(pool))
        result = index.check(texts_of(queries))
        assert len(index) == 800
        for i, query in enumerate(queries):
            one = FilterResult(result.kept[i : i + 1], result.neighbor[i : i + 1], result.score[i : i + 1])
            assert_same(one, oracles.greedy([query], 0.7, pool))


def test_add_keeps_duplicates_and_ties_go_to_the_lowest_position() -> None:
    for prefilter in ("exact", "none", "minhash"):
        index = NoveltyIndex(prefilter=prefilter)
        index.add(["other words here now", *["a b c d"] * 500, "a b c d e"])
        result = index.check(["a b c d", "a b c d e", "e d c b a"])
        assert result.neighbor.tolist() == [1, 501, -1]
        assert result.score[:2].tolist() == [1.0, 1.0]


def test_scores_nearest_mean(corpus: list[list[str]]) -> None:
    pool = [*corpus[:1500], ["long"] * 70, oracles.sentence(random.Random(1), oracles.words(50), 90)]
    index = NoveltyIndex(prefilter="minhash")
    index.add(texts_of(pool))
    for query in (*corpus[1500:1520], [], ["long"] * 100, pool[-1]):
        text = " ".join(query)
        expected = [oracles.score(query, row) for row in pool]
        scores = index.scores(text)
        assert scores.dtype == np.float64
        assert scores.tolist() == expected
        assert index.mean_score(text) == np.mean(np.array(expected))
        order = sorted(range(len(pool)), key=lambda i: (-expected[i], i))
        for k in (0, 1, 10, len(pool), 10**6):
            positions, best = index.nearest(text, k)
            assert positions.tolist() == order[:k]
            assert best.tolist() == [expected[i] for i in order[:k]]


def test_scan_follows_a_growing_pool(corpus: list[list[str]]) -> None:
    index = NoveltyIndex()
    at = 0
    for step in (1, 5, 1500, 1, 900, 1100, 3):
        index.add(texts_of(corpus[at : at + step]))
        at += step
        query = ["brandnew", *corpus[at]]
        assert index.scores(" ".join(query)).tolist() == [oracles.score(query, row) for row in corpus[:at]]


def test_empty_and_silent_texts_are_kept() -> None:
    for prefilter in ("exact", "none", "minhash"):
        index = NoveltyIndex(prefilter=prefilter)
        result = index.filter(["", "", "...", " ", "a"])
        assert result.kept.all()
        assert np.isnan(result.score).all()
        assert len(index) == 5
        assert index.scores("").tolist() == [0.0] * 5
        assert index.scores("a").tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    empty = NoveltyIndex()
    assert empty.mean_score("a") == 0.0
    assert empty.nearest("a", 3)[0].size == 0
    assert empty.scores("a").size == 0
    assert empty.filter([]).kept.size == 0


def test_encoded_texts_stand_in_for_texts(corpus: list[list[str]]) -> None:
    texts = texts_of(corpus[:400])
    expected = NoveltyIndex().filter(texts)
    for prepare in ([], ["zzz new tokens first", texts[7]]):
        index = NoveltyIndex()
        index.check(prepare)
        shared = encode(texts[:150])
        parts = [index.filter(shared)]
        more = encode(texts[150:], vocabulary=shared.vocabulary)
        parts.append(index.filter(more))
        for k in range(3):
            assert np.array_equal(np.concatenate([p[k] for p in parts]), expected[k], equal_nan=True)
        assert index.scores(encode(texts[:1])).tolist() == index.scores(texts[0]).tolist()
    with pytest.raises(ValueError, match="tokenizer"):
        NoveltyIndex(tokenizer="unicode").add(encode(texts))
    assert isinstance(encode(shared), Encoded)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, math.nan, math.inf, "0.7", None, True])
def test_thresholds_outside_are_refused(threshold: object) -> None:
    with pytest.raises(ValueError, match="threshold"):
        NoveltyIndex(threshold)  # type: ignore[arg-type]


def test_bad_settings_and_texts_are_refused_and_leave_the_pool() -> None:
    with pytest.raises(ValueError, match="prefilter"):
        NoveltyIndex(prefilter="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokenizer"):
        NoveltyIndex(tokenizer="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="recall"):
        NoveltyIndex(recall=1.0)
    index = NoveltyIndex()
    index.filter(["a b c d"])
    for bad, error in ((["x y z w", "\ud800"], ValueError), (["x y z w", None], TypeError), ("one text", TypeError)):
        with pytest.raises(error):
            index.filter(bad)  # type: ignore[arg-type]
        assert len(index) == 1
    assert index.filter(["x y z w"]).kept.tolist() == [True]
    with pytest.raises(ValueError, match="k must"):
        index.nearest("a", -1)
    with pytest.raises(ValueError, match="one text"):
        index.scores(encode(["a", "b"]))


def test_unicode_sees_chinese_copies() -> None:
    index = NoveltyIndex(tokenizer="unicode")
    result = index.filter(["把下面的句子翻译成英文并解释", "把下面的句子翻译成英文并说明", "写一首关于春天的诗"])
    assert result.kept.tolist() == [True, False, True]


def test_a_very_long_text_among_short_ones() -> None:
    rng = random.Random(9)
    long = rng.choices(oracles.words(900), k=100_000)
    index = NoveltyIndex()
    result = index.filter([" ".join(long), "a b c d", " ".join(long[:60_000]), " ".join(long[:99_000])])
    assert result.kept[:2].tolist() == [True, True]
    assert result.neighbor[2:].tolist() == [0, 0]
    assert result.score[2:].tolist() == [
        oracles.f_measure(60_000, 60_000, 100_000),
        oracles.f_measure(99_000, 99_000, 100_000),
    ]


@pytest.mark.parametrize("threads", [1, 3, None])
def test_nearest_before_is_what_nearest_said_when_the_text_joined(
    threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BLOCK", 100)
    stream = random.Random(5)
    texts = [" ".join(stream.choices("abcdefgh", k=stream.randrange(1, 9))) for _ in range(280)]
    texts += ["", "--", *(" ".join(stream.choices("abcdefgh", k=k)) for k in (63, 64, 65, 66, 127, 128, 129, 200, 5))]
    texts += [texts[-2], *(" ".join(stream.choices("ijkl", k=70)) for _ in range(8))]
    stream.shuffle(texts)
    index = NoveltyIndex(threshold=0.9)
    said = []
    for text in texts:
        positions, scores = index.nearest(text, 1)
        said.append((int(positions[0]), float(scores[0])) if positions.size else (-1, None))
        index.add([text])
    neighbors, scores = index.nearest_before(range(300), threads)
    assert neighbors[0] == -1
    assert np.isnan(scores[0])
    assert list(zip(neighbors.tolist()[1:], scores.tolist()[1:], strict=True)) == said[1:]
    some = index.nearest_before([250, 3], threads)
    assert some[0].tolist() == [said[250][0], said[3][0]]
    assert index.nearest_before([])[0].size == 0
    with pytest.raises(IndexError, match="300 texts"):
        index.nearest_before([300])


def test_what_was_met_before_the_order_was_sorted_anew_is_met_again() -> None:
    index = NoveltyIndex()
    copy = "name the seven largest rivers of the world"
    index.filter([copy] * 5)  # the fifth query meets the text
    # So many texts that the tokens are sorted anew, and a copy is again the fifth query.
    others = [f"word{number} other{number} third{number}" for number in range(3000)]
    kept = index.filter([*others[:4], copy, *others[4:]]).kept
    assert np.flatnonzero(~kept).tolist() == [4]
