"""What is counted of runs and files, against what they hold."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import pytest

from selfinstruct_local.filters.decide import Decider
from selfinstruct_local.filters.files import FileFilter
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.report.lengths import bin_widths, describe_lengths
from selfinstruct_local.report.make import make_report
from selfinstruct_local.report.novelty import measure_similarity
from selfinstruct_local.report.rows import sample_rows
from selfinstruct_local.report.sources import ReportSource, read_source, script_of, source_names, with_nearest
from selfinstruct_local.report.statistics import SourceStatistics, make_statistics
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file


def read(path: Path, seeds: Path | None = None) -> ReportSource:
    return read_source(path, seeds, path.name, lambda _rows: None)


def figures_of(*sources: ReportSource) -> list[SourceStatistics]:
    nears = [
        measure_similarity(
            [seed.instruction for seed in source.seeds],
            [each.task.instruction for each in source.kept],
            source.tokenizer,
            source.threshold,
            seeds_stand_before=bool(source.earlier),
        )
        for source in sources
    ]
    return make_statistics(sources, nears, stderr_console())


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return path


def test_a_run_counts_what_its_ledger_holds(run: Path) -> None:
    (found,) = figures_of(read(run))
    with RunStore(run, read_only=True) as store:
        totals, tasks = store.totals(), list(store.accepted())
        scores = [each.verdict.score for job in store.ledger() for each in job.decided.candidates if each.verdict.keep]
    assert (found.kept, found.rejected, found.jobs) == (totals.accepted, totals.rejected, totals.jobs)
    assert list(found.rejected) == list(totals.rejected)
    assert found.completion_tokens == totals.completion_tokens
    assert found.acceptance == totals.accepted / (totals.accepted + sum(totals.rejected.values()))
    assert found.accepted_per_1000_tokens == 1000 * totals.accepted / totals.completion_tokens
    # The run scored what it accepted itself.
    assert None not in scores
    assert found.to_earlier.median == median(score for score in scores if score is not None)
    assert found.to_earlier.above == 0
    assert all(pair.score <= 0.7 for pair in found.closest)
    assert found.seeds == 175
    assert found.instances == sum(len(task.instances) for task in tasks)
    assert found.lengths["instruction"].median == median(len(task.instruction.split()) for task in tasks)
    assert found.lengths["output"].longest == max(len(task.output.split()) for task in tasks)
    assert sum(step.accepted for step in found.course) == totals.accepted
    assert sum(step.completion_tokens for step in found.course) <= totals.completion_tokens
    assert [step.first for step in found.course[1:]] == [step.last + 1 for step in found.course[:-1]]
    assert found.course[-1].last == totals.jobs - 1


def test_rows_of_a_run_carry_lineage_and_reasons(run: Path) -> None:
    sample = sample_rows(read(run))
    with RunStore(run, read_only=True) as store:
        jobs = {job.decided.number: job.decided for job in store.ledger()}
    assert sample.whole
    for row in sample.rows:
        job = jobs[row["job"]]
        candidate = next(each for each in job.candidates if each.task.id == row["id"])
        assert row.get("shown", []) == list(job.demonstrations)
        assert row.get("rule", "") == candidate.verdict.rule
        assert row.get("detail", "") == candidate.verdict.detail
        assert row.get("neighbor") == candidate.neighbor_id
    assert sample.kept + sample.rejected == len(sample.rows)
    assert sample.rejected


def test_a_file_of_rejects_says_why(tmp_path: Path) -> None:
    why = {"id": "", "rule": "not_novel", "detail": "ROUGE-L 0.9", "neighbor": "7", "score": 0.9}
    path = write(
        tmp_path / "rejects.jsonl",
        {"instruction": "Write a poem.", "output": "Sea.", "rejected": why},
        {"instruction": "Write a play.", "output": "Act one."},
        {"instruction": "Add.", "output": "3", "rejected": "a field of somebody else's"},
    )
    source = read(path)
    assert [(each.rule, each.detail, each.neighbor, each.score) for each in source.rejected] == [
        ("not_novel", "ROUGE-L 0.9", "7", 0.9)
    ]
    assert [each.task.id for each in source.kept] == ["2", "3"]
    (found,) = figures_of(source)
    assert (found.kept, found.rejected, found.acceptance) == (2, {"not_novel": 1}, 2 / 3)


def test_the_nearest_of_a_file_of_rejects_is_told(tmp_path: Path) -> None:
    tasks = write(tmp_path / "tasks.jsonl", *[{"instruction": "Name three long rivers.", "output": "Nile."}] * 2)
    file_filter = FileFilter(Decider((), NoveltyIndex()))
    file_filter.filter_files([tasks], tmp_path / "kept.jsonl", tmp_path / "rejects.jsonl")
    (row,) = sample_rows(read(tmp_path / "rejects.jsonl")).rows
    assert (row["neighbor"], row["score"]) == (f"{tasks}:1", 1.0)


def test_a_file_in_chinese_is_counted_in_characters_and_has_no_verbs() -> None:
    path = seed_file("zh")
    (found,) = figures_of(read(path))
    tasks = read_tasks(path)
    assert (found.verbs, found.unit, found.tokenizer, found.seeds_name) == (
        None,
        "characters",
        "unicode",
        "the package's zh.jsonl",
    )
    assert found.lengths["instruction"].median == median(len(task.instruction) for task in tasks)
    assert found.scripts["han"] > 160
    assert found.classification == {
        "yes": sum(task.is_classification is True for task in tasks),
        "no": sum(task.is_classification is False for task in tasks),
        "not said": 0,
    }
    # They are the seeds themselves.
    assert found.to_seeds
    assert found.to_seeds.median == 1.0


def test_a_file_s_nearest_earlier_rows_stand_in_its_table(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl",
        {"instruction": "Write a poem about rain."},
        {"instruction": "Add two and three."},
        {"instruction": "Write a poem about snow."},
    )
    source = read(path, seed_file("en"))
    near = measure_similarity(
        [], [each.task.instruction for each in source.kept], "rouge", 0.7, seeds_stand_before=False
    )
    rows = sample_rows(with_nearest(source, near)).rows
    assert [(row.get("neighbor"), row.get("score")) for row in rows][::2] == [(None, None), ("1", 0.8000000000000002)]


def test_scripts_are_told_by_most_words() -> None:
    assert script_of(["Hello there", "Ünïcode text", "Привет"]) == "latin"
    assert script_of(["写一首诗", "写 Python"]) == "han"
    assert script_of(["Привет, мир"]) == "cyrillic"
    assert script_of(["123", ""]) == "no letters"


def test_histograms_share_their_bins_and_lose_nothing() -> None:
    short, long = np.arange(1, 30), np.concatenate([np.arange(1, 200), [5000]])
    widths = bin_widths([("words", {"output": short}), ("words", {"output": long}), ("characters", {"output": short})])
    assert widths == {("words", "output"): 10, ("characters", "output"): 1}
    found = describe_lengths(long, 10)
    assert found.histogram.counts == (9, *[10] * 19, *[0] * 10, 1)
    assert found.histogram.open_ended
    assert not describe_lengths(short, 10).histogram.open_ended
    assert describe_lengths(np.empty(0, np.int64), 5).count == 0


def test_a_score_on_the_threshold_stands_below_it(tmp_path: Path) -> None:
    # 7 of 10 tokens are shared: F is 0.7, and not above it.
    path = write(
        tmp_path / "in.jsonl",
        {"instruction": "a b c d e f g h i j"},
        {"instruction": "a b c d e f g x y z"},
    )
    (found,) = figures_of(read(path))
    counts = found.to_earlier.histogram.counts
    assert (counts.index(1) + 1) * found.to_earlier.histogram.width == pytest.approx(0.7)
    assert found.to_earlier.above == 0
    assert [pair.score for pair in found.closest] == [pytest.approx(0.7)]


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert source_names(paths) == [str(paths[0]), str(paths[1]), "c"]


def test_a_run_that_was_not_begun_has_a_page_too(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run"):
        pass
    (found,) = make_report([tmp_path / "run"], tmp_path / "page.html", None, stderr_console())
    assert (found.kept, found.candidates, found.acceptance, found.to_seeds, found.course) == (0, 0, None, None, [])
    assert "There are no kept tasks." in (tmp_path / "page.html").read_text(encoding="utf-8")
