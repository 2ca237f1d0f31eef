"""The spread of tasks: prefixes are measured, and the yield of each hundred is that of its tokens."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.report import verbs
from selfinstruct_local.task import Task
from tests.generate.test_run import generate, settings
from tests.scripted_engine import PLACES, THINGS, VERBS, ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")
if importlib.util.find_spec(verbs.MODEL) is None:
    pytest.skip(f"root verbs need {verbs.MODEL}, which is missing", allow_module_level=True)

import bench_spread
from bench_spread import Source, spread_rows, yields
from finished_runs import JobYield

TASKS = [
    Task.single(f"{verb} the {THINGS[number % 10]} of {PLACES[number % 12]}.", "a text" if number % 4 == 0 else "", "x")
    for number, verb in enumerate(VERBS * 11)
]


def test_a_source_is_measured_as_far_as_it_reaches() -> None:
    seeds = ["Describe the rivers of Norway.", "Sing a song."]
    rows = spread_rows(Source("own", "en", seeds, TASKS[:120], kinds_known=False))
    assert set(rows) == {50, 100}
    cells = dict(zip(bench_spread.HEAD, rows[50], strict=True))
    found = [each.verb for each in verbs.root_verbs(task.instruction for task in TASKS[:50])]
    assert cells["root verbs"] == len(set(found) - {""}) > 5
    assert cells["per 100 tasks"] == f"{2 * len(set(found) - {''})}"
    assert (cells["with input"], cells["classification"]) == ("26 %", "-")
    score = RougeScorer(["rougeL"]).score
    texts = [*seeds, *(task.instruction for task in TASKS[:50])]
    nearest = [
        max(score(text, other)["rougeL"].fmeasure for other in texts[:place])
        for place, text in enumerate(texts[2:], start=2)
    ]
    assert cells["nearest ROUGE-L, seeds before"] == f"{np.mean(nearest):.3f}"
    alone = [
        max(score(text, other)["rougeL"].fmeasure for other in texts[2:place])
        for place, text in enumerate(texts[3:], start=3)
    ]
    assert cells["without seeds"] == f"{np.mean(alone):.3f}"


def test_chinese_has_no_root_verbs() -> None:
    tasks = [Task.single(f"请写出{number}个城市的名字。", "", "北京") for number in range(50)]
    (row,) = spread_rows(Source("own", "zh", (), tasks, kinds_known=True)).values()
    cells = dict(zip(bench_spread.HEAD, row, strict=True))
    assert (cells["root verbs"], cells["per 100 tasks"], cells["nearest ROUGE-L, seeds before"]) == ("-", "-", "-")
    assert float(str(cells["without seeds"])) > 0.8


def test_each_hundred_has_the_tokens_that_led_to_it() -> None:
    even = [JobYield(2, 40)] * 100
    assert yields(even) == pytest.approx([50.0, 50.0])
    # Tokens without an accepted task count for the hundred that they delay; those after the last full one do not.
    assert yields([*even[:50], JobYield(0, 2000), *even[50:], JobYield(3, 9999)]) == pytest.approx([50.0, 25.0])
    assert yields(even[:49]) == []


def test_the_report_puts_runs_next_to_alpaca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path / "long", settings(num=205, patience=200, threshold=0.95), ScriptedEngine(in_flight=8))
    generate(tmp_path / "short", settings(num=5), ScriptedEngine())
    alpaca = tmp_path / "alpaca.json"
    alpaca.write_bytes(orjson.dumps([{"instruction": t.instruction, "input": "", "output": "x"} for t in TASKS]))
    runs = [str(tmp_path / name) for name in ("long", "short")]
    monkeypatch.setattr(sys, "argv", ["bench_spread.py", *runs, "--alpaca", str(alpaca)])
    bench_spread.main()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    measured = [tuple(cells[:2]) for cells in lines if cells and cells[0].isdigit()]
    assert measured == [("50", "long"), ("50", "Alpaca"), ("100", "long"), ("100", "Alpaca"), ("200", "long")]
    (row,) = [cells for cells in lines if cells and cells[0] == "long"]
    first, last = (float(rate) for rate in row[4].split(", "))
    assert (float(row[1]), float(row[2])) == (first, last)
    assert row[3] == f"{100 * last / first:.0f} %"
