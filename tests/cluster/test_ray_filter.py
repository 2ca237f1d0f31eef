"""The filter on a real Ray of two workers, against the filter of one machine."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfinstruct_local.cluster import sources as cluster_sources
from selfinstruct_local.cluster.filtering import ClusterCounts, ClusterFilter, NoveltySettings
from selfinstruct_local.cluster.reading import ScreenSettings
from selfinstruct_local.cluster.session import ray_session
from selfinstruct_local.cluster.sources import InputFile
from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.thresholds import DEFAULT_THRESHOLDS
from selfinstruct_local.io.reader import UnreadFieldWarning
from selfinstruct_local.runs.store import RunStore
from tests.cluster.files import WORKERS, on_one_machine, read_folder, records, write_lines
from tests.generate.test_run import generate, settings
from tests.kernels.oracles import SOAK
from tests.scripted_engine import ScriptedEngine

SCREEN = ScreenSettings("alpaca", "en", DEFAULT_THRESHOLDS, (), 13, "rouge", skip_bad_lines=False)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray", "small_parts")]
long = pytest.mark.skipif(not SOAK, reason="one more pass of Ray: in `make soak`")


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with ray_session(workers=WORKERS):
        yield


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_sources, "PART_BYTES", 1 << 14)
    monkeypatch.setattr(cluster_sources, "PART_ROWS", 100)


def on_ray(
    sources: Sequence[InputFile],
    out: Path,
    screen: ScreenSettings = SCREEN,
    threshold: float = 0.7,
    *,
    minhash: bool = False,
) -> ClusterCounts:
    novelty = NoveltySettings(threshold, minhash=minhash)
    return ClusterFilter(sources, screen, novelty, workers=WORKERS).filter_into(out)


def test_keeps_and_rejects_what_one_machine_does_and_says_the_same_why(tmp_path: Path) -> None:
    rows = records(3000)
    lines = write_lines(tmp_path / "a.jsonl", rows[:1200])
    array, table = tmp_path / "b.json", tmp_path / "c.parquet"
    array.write_bytes(orjson.dumps(rows[1200:1800]))
    pq.write_table(pa.Table.from_pylist(rows[1800:2800]), table, row_group_size=60)
    known = write_lines(tmp_path / "known.jsonl", rows[2800:])
    files = [lines, array, table]
    counts = on_ray([*map(InputFile.of, files), InputFile.of(known, known=True)], tmp_path / "out")
    kept, rejected = on_one_machine(files, [known], tmp_path / "local")
    assert read_folder(tmp_path / "out") == (kept, rejected)
    near = [row["rejected"] for row in rejected if row["rejected"]["rule"] == "not_novel"]
    assert len(near) > 300
    assert {each["neighbor_file"] for each in near} == {str(path) for path in (*files, known)}
    assert counts.parts > 20
    assert (counts.read, counts.kept) == (2800, len(kept))
    summary = orjson.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert summary["rejected"] == dict(counts.rejected)
    assert summary["pairs"] == counts.pairs > len(near)


@long
def test_chinese_by_the_tokens_of_all_scripts(tmp_path: Path) -> None:
    texts = [
        "写一首关于春天的短诗。",
        "写一首关于秋天的短诗。",
        "列出三种常见的水果。",
        "写一首关于春天的短诗！",
        "解释什么是光合作用。",
    ]
    path = write_lines(
        tmp_path / "zh.jsonl", [{"instruction": text, "input": "", "output": "好的。"} for text in texts]
    )
    counts = on_ray(
        [InputFile.of(path)], tmp_path / "out", SCREEN._replace(rules="none", lang="zh", tokenizer="unicode")
    )
    assert [row["instruction"] for row in read_folder(tmp_path / "out")[0]] == [texts[0], texts[2], texts[4]]
    assert counts.silent == 0


@long
def test_minhash_tells_nearly_the_same_and_finds_no_pair_that_is_none(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", records(2000))
    exact = on_ray([InputFile.of(path)], tmp_path / "exact")
    hashed = on_ray([InputFile.of(path)], tmp_path / "hashed", minhash=True)
    assert 0.99 * exact.pairs <= hashed.pairs <= exact.pairs
    kept = {row["output"] for row in read_folder(tmp_path / "exact")[0]}
    other = {row["output"] for row in read_folder(tmp_path / "hashed")[0]}
    assert len(kept ^ other) <= 0.01 * len(kept)


def test_runs_are_merged_one_after_the_other(tmp_path: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    for number, run in enumerate(runs):
        generate(run, settings(num=40, seed=number), ScriptedEngine())
    sources = [InputFile.of(run, run=True, known=known) for known in (True, False) for run in runs]
    counts = on_ray(sources, tmp_path / "out")
    kept, rejected = read_folder(tmp_path / "out")
    first = orjson.loads((runs[0] / "alpaca.json").read_bytes())
    assert kept[: len(first)] == first
    assert len(first) < len(kept) < len(first) + len(orjson.loads((runs[1] / "alpaca.json").read_bytes()))
    across = [row["rejected"] for row in rejected if row["rejected"].get("neighbor_file") == str(runs[0])]
    assert across
    assert all(each["neighbor"] for each in across)
    assert counts.kept == len(kept)


@pytest.mark.parametrize("prefilter", ["exact", pytest.param("minhash", marks=long)])
def test_parts_with_nothing_to_compare(prefilter: str, tmp_path: Path) -> None:
    refused = [{"instruction": "Draw it.", "input": "", "output": "x"}] * 300
    later = [{"instruction": f"Explain a{n} and b{n} beside c{n}.", "output": "x"} for n in range(300)]
    path = write_lines(tmp_path / "a.jsonl", [*refused, *later, {**later[0], "input": "", "note": "late"}])
    late = write_lines(tmp_path / "b.jsonl", [{"instruction": "Name a large river.", "output": "x", "note": "late"}])
    bare = tmp_path / "bare"
    with RunStore(bare) as store:
        store.create({"rules": "alpaca", "threshold": 0.7, "lang": "en", "profile": "alpaca"}, [])
    minhash = prefilter == "minhash"
    counts = on_ray(
        [InputFile.of(bare, run=True, known=True), *map(InputFile.of, (path, path, late))],
        tmp_path / "out",
        minhash=minhash,
    )
    kept, rejected = read_folder(tmp_path / "out")
    local_kept, local_rejected = on_one_machine([path, path, late], [], tmp_path / "local")
    assert [row["instruction"] for row in kept] == [row["instruction"] for row in local_kept]
    assert rejected == local_rejected
    assert (counts.read, counts.kept, len(rejected)) == (1203, 301, 902)
    # Every field has its column, whichever record has it first.
    assert {*kept[0]} == {"instruction", "input", "output", "note"}
    assert all(pq.read_metadata(each).num_rows for each in (tmp_path / "out" / "kept").iterdir())
    equal = on_ray([InputFile.of(path)], tmp_path / "equal", threshold=1.0, minhash=minhash)
    assert equal.kept == 301
    silent = write_lines(tmp_path / "silent.jsonl", [{"instruction": "写一首诗。", "output": "x"}] * 300)
    counts = on_ray([InputFile.of(silent)], tmp_path / "silent", SCREEN._replace(rules="none"), minhash=minhash)
    assert (counts.silent, counts.kept) == (300, 300)


@long
def test_long_texts_and_the_same_file_as_known(tmp_path: Path) -> None:
    stream = random.Random(3)
    words = [f"word{number}" for number in range(900)]
    texts = [" ".join(stream.choices(words, k=stream.randint(100, 400))) for _ in range(60)]
    for _ in range(60):
        copy = stream.choice(texts).split()
        del copy[stream.randrange(len(copy)) :: stream.randint(4, 9)]
        texts.append(" ".join(copy))
    rows = [{"instruction": text, "input": "", "output": "x"} for text in texts]
    path = write_lines(tmp_path / "a.jsonl", rows)
    screen = SCREEN._replace(rules="none")
    on_ray([InputFile.of(path)], tmp_path / "out", screen)
    kept, rejected = on_one_machine([path], [], tmp_path / "local", rules="none")
    assert read_folder(tmp_path / "out") == (kept, rejected)
    assert 20 < len(rejected) < 80
    known = on_ray([InputFile.of(path, known=True), InputFile.of(path)], tmp_path / "known", screen)
    assert known.kept == 0


def test_instances_of_a_task_are_kept_wherever_they_are(tmp_path: Path) -> None:
    stream = random.Random(8)
    rows = records(700)
    for row in stream.choices(rows, k=500):
        rows.append({**row, "input": stream.choice(["", "one", "two", "three"]), "output": row["output"]})
    stream.shuffle(rows)
    rows += [{**row, "response": "x"} for row in rows[:3]]
    files = [write_lines(tmp_path / name, part) for name, part in (("a.jsonl", rows[:500]), ("b.jsonl", rows[500:]))]
    known = write_lines(tmp_path / "known.jsonl", rows[::100])
    with pytest.warns(UnreadFieldWarning, match="'response' of 3 record"):
        counts = on_ray([*map(InputFile.of, files), InputFile.of(known, known=True)], tmp_path / "out")
    kept, rejected = on_one_machine(files, [known], tmp_path / "local")
    ours, theirs = read_folder(tmp_path / "out")
    assert [{name: value for name, value in row.items() if value is not None} for row in ours] == kept
    assert theirs == rejected
    assert counts.kept == len(kept)
    assert counts.instances == len(kept) - len({row["instruction"] for row in kept}) > 50
    assert orjson.loads((tmp_path / "out" / "summary.json").read_bytes())["instances"] == counts.instances


def test_a_bad_record_is_named_by_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", records(900))
    with path.open("ab") as stream:
        stream.write(b'{"instruction": 3}\n')
    with pytest.raises(UsageError, match=r"a\.jsonl:901: field 'instruction'"):
        on_ray([InputFile.of(path)], tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl"]
    counts = on_ray([InputFile.of(path)], tmp_path / "out", SCREEN._replace(skip_bad_lines=True))
    assert counts.read == 900
    assert len(counts.skipped) == 1


def test_fields_of_two_types_are_refused(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "a.jsonl", [{"instruction": "Name three large rivers.", "output": "x", "n": 3}])
    other = write_lines(tmp_path / "b.jsonl", [{"instruction": "Write a poem about snow.", "output": "x", "n": "3"}])
    with pytest.raises(UsageError, match=r"b\.jsonl: its records .* one table"):
        on_ray([InputFile.of(one), InputFile.of(other)], tmp_path / "out")
