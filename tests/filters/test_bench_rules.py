"""The table of false alarms: what is counted, and that the page has every rule."""

import gzip
import re
import sys
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import LANGUAGES
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_rules

GOOD = Task.single("Name three long rivers of Africa.", "", "The Nile, the Congo and the Niger.")


def test_each_rule_is_counted_by_itself() -> None:
    tasks = [
        GOOD,
        Task.single("Name rivers", "", "2 + 2 = 5, and so on:"),  # a published rule and two of ours
        Task.single("Name rivers", "", "The Nile."),
        GOOD._replace(measures={"confidence": -2.0}),  # off by default
    ]
    counts = bench_rules.measure(bench_rules.Source("own", "en", tasks))
    expected = {"too_short": 2, "wrong_arithmetic": 1, "cut_off": 1, "low_confidence": 1}
    assert counts == {**expected, bench_rules.OWN: 1, bench_rules.ALL: 2}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_our_rules_reject_no_seed(lang: str) -> None:
    source = bench_rules.Source("seeds", lang, read_tasks(seed_file(lang)))
    assert bench_rules.measure(source)[bench_rules.OWN] == 0


def test_a_run_has_all_its_candidates(tmp_path: Path) -> None:
    generate(tmp_path / "run", settings(num=20), ScriptedEngine())
    source = bench_rules.read_source(tmp_path / "run", "zh")
    assert source.lang == "en"
    assert len(source.tasks) > 20  # the rejected ones too


def test_packed_files_are_read(tmp_path: Path) -> None:
    record = {"instruction": GOOD.instruction, "input": "", "output": GOOD.output}
    (tmp_path / "tasks.jsonl.gz").write_bytes(gzip.compress(orjson.dumps(record)))
    (read,) = bench_rules.read_file(tmp_path / "tasks.jsonl.gz")
    assert read.instances == GOOD.instances


def test_the_sample_is_drawn_by_its_seed() -> None:
    tasks = [GOOD._replace(id=str(number)) for number in range(100)]
    drawn = bench_rules.sample(tasks, 10, 1)
    assert len(drawn) == 10
    assert drawn == bench_rules.sample(tasks, 10, 1) != bench_rules.sample(tasks, 10, 2)
    assert bench_rules.sample(tasks, 1000, 1) == tasks


def test_the_table_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench_rules.BEGIN}\nold\n{bench_rules.END}\nafter\n", encoding="utf-8")
    bench_rules.write_docs("new", page)
    assert page.read_text(encoding="utf-8") == f"before\n{bench_rules.BEGIN}\n\nnew\n\n{bench_rules.END}\nafter\n"
    page.write_text("none", encoding="utf-8")
    with pytest.raises(SystemExit, match=re.escape(bench_rules.BEGIN)):
        bench_rules.write_docs("new", page)


def test_the_page_has_every_rule_and_an_own_share_of_one_percent_at_most() -> None:
    text = bench_rules.DOCS.read_text(encoding="utf-8")
    rows = text.partition(bench_rules.BEGIN)[2].partition(bench_rules.END)[0].splitlines()
    names = {match[1] for row in rows if (match := re.match(r"\| `(\w+)`", row))}
    assert names == {name.partition(" ")[0] for lang in LANGUAGES for name in bench_rules.rules_of(lang)}
    head = next(row for row in rows if row.startswith("| rule")).split(" | ")
    own = next(row for row in rows if bench_rules.OWN in row).split(" | ")
    match = re.match(r"(\d+) / (\d+)", own[head.index("expert tasks")])
    assert match is None or int(match[1]) <= 0.01 * int(match[2])
