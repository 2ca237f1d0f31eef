"""The yield of finished runs: its counts are those of the runs' databases."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.task import Instance, Task
from tests.generate.test_run import MODEL, generate, settings
from tests.scripted_engine import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")

import bench_yield
from finished_runs import JobYield, read_runs
from rates import dispersion


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that spent its budget, with a tokenizer of words in its model folder."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    chosen = settings(num=1000, patience=1000, token_budget=700, profile="self-instruct-2022")
    facts = {**MODEL, "model_path": str(tmp_path / "model")}
    assert generate(tmp_path / "run", chosen, ScriptedEngine(in_flight=6), model=facts).reason == "tokens"
    return tmp_path / "run"


def test_the_row_holds_the_counts_of_the_run(run: Path) -> None:
    (read,) = read_runs([run], may_be_running=False)
    cells = dict(zip(bench_yield.HEAD, bench_yield.row(read), strict=True))
    with RunStore(run, read_only=True) as store:
        (tokens,) = store._db.execute("SELECT sum(completion_tokens) FROM jobs").fetchone()
        (everything,) = store._db.execute("SELECT sum(completion_tokens) FROM completions").fetchone()
        pool = list(store.accepted())
        rules = store._db.execute("SELECT rule, count(*) FROM candidates WHERE rule <> '' GROUP BY rule").fetchall()
    accepted = [task for task in pool if task.instances]
    assert len(accepted) < len(pool)  # the bare ones are in no export
    assert int(str(cells["of unfinished jobs"])) == everything - tokens > 0
    assert cells["generated tokens"] == f"{tokens:,}"
    assert cells["accepted"] == str(len(accepted))
    assert bench_yield.rate(read).estimate == pytest.approx(1000 * len(accepted) / tokens)
    words = sum(
        len(text.split())
        for task in accepted
        for text in (task.instruction, *(each for case in task.instances for each in case))
    )
    assert cells["tokens inside accepted tasks"] == f"{100 * words / tokens:.0f} %"
    assert set(str(cells["rejected, top 5 rules"]).split(", ")) == {f"`{rule}` {number}" for rule, number in rules}
    assert (cells["model"], cells["profile"], cells["language"]) == ("model", "`self-instruct-2022`", "en")


def test_shares_and_lengths_are_those_of_the_accepted_tasks(run: Path) -> None:
    (read,) = read_runs([run], may_be_running=False)
    tasks = [
        Task("Name one river.", (Instance("", "The Nile."),), is_classification=False),
        Task("Is this a river?", (Instance("", ""), Instance("Nile", "yes")), is_classification=True),
        Task("说出一条河的名字。", (Instance("", "长江"),)),
    ]
    found = {}
    for lang in ("en", "zh"):
        cells = bench_yield.row(replace(read, accepted=tasks, facts={**read.facts, "lang": lang}))
        found[lang] = dict(zip(bench_yield.HEAD, cells, strict=True))
    for shown in found.values():
        assert (shown["with input"], shown["classification"]) == ("33 %", "33 %")
    assert [(shown["instruction"], shown["output"]) for shown in found.values()] == [("3", "1"), ("15", "2")]


def test_jobs_that_share_their_fate_widen_the_interval(run: Path) -> None:
    (read,) = read_runs([run], may_be_running=False)
    jobs = [JobYield(number, 50) for number in (0, 0, 0, 8, 0, 8, 0, 0)]
    assert dispersion([job.accepted for job in jobs]) > 6
    even, uneven = (bench_yield.rate(replace(read, jobs=each)) for each in ([JobYield(2, 50)] * 8, jobs))
    assert even.estimate == uneven.estimate == 40
    assert uneven.low < even.low < even.high < uneven.high


def test_a_report_is_whole_markdown_and_a_run_at_work_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_yield.py", str(run)])
    bench_yield.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(bench_yield.HEAD) + 1}
    monkeypatch.setattr(sys, "argv", ["bench_yield.py", str(run), "--write"])
    with RunStore(run), pytest.raises(SystemExit):
        bench_yield.main()
    assert f"{run}: 'selfinstruct generate' is running" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["bench_yield.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        bench_yield.main()
    assert str(tmp_path / "none") in capsys.readouterr().err
