"""Exports: the exact records of each format, regen against rouge_score, and that the loader of trainers reads them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import typer
from datasets import Features, List, Value, load_dataset
from rouge_score import rouge_scorer
from typer.testing import CliRunner, Result

from selfinstruct_local.cli.export import export
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.create import import_tasks
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.languages.base import TOKENIZERS
from selfinstruct_local.runs.export.formats import FORMATS
from selfinstruct_local.runs.export.similarity import Neighborhood
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.templates.alpaca import alpaca_prompt
from tests.generate.test_run import generate, pool, settings
from tests.scripted_engine import ScriptedEngine

TEXT = Value("string")
INSTANCES = [{"input": "2, 3", "output": "5"}, {"input": "4, 4", "output": "8"}]
# Two cases, no input, and no output at all.
IMPORTED = [
    {"instruction": "Add the numbers.", "instances": INSTANCES, "is_classification": False},
    {"instruction": "Name a river in 中国.", "instances": [{"input": "", "output": "长江\u2028"}]},
    {"instruction": "Compare two bridges by their age."},
]
EXPECTED: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "Add the numbers.", "input": "2, 3", "output": "5"},
        {"instruction": "Add the numbers.", "input": "4, 4", "output": "8"},
        {"instruction": "Name a river in 中国.", "input": "", "output": "长江\u2028"},
    ],
    "self-instruct": [
        {
            "id": "inherited-0",
            "instruction": "Add the numbers.",
            "instances": INSTANCES,
            "is_classification": False,
        },
        {
            "id": "inherited-1",
            "instruction": "Name a river in 中国.",
            "instances": [{"input": "", "output": "长江\u2028"}],
            "is_classification": None,
        },
    ],
    "sharegpt": [
        {
            "conversations": [
                {"from": "human", "value": "Add the numbers.\n\n2, 3"},
                {"from": "gpt", "value": "5"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "Add the numbers.\n\n4, 4"},
                {"from": "gpt", "value": "8"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "Name a river in 中国."},
                {"from": "gpt", "value": "长江\u2028"},
            ]
        },
    ],
    "messages": [
        {
            "messages": [
                {"role": "user", "content": "Add the numbers.\n\n2, 3"},
                {"role": "assistant", "content": "5"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "Add the numbers.\n\n4, 4"},
                {"role": "assistant", "content": "8"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "Name a river in 中国."},
                {"role": "assistant", "content": "长江\u2028"},
            ]
        },
    ],
    "prompt-completion": [
        {"prompt": alpaca_prompt("Add the numbers.", "2, 3"), "completion": "5"},
        {"prompt": alpaca_prompt("Add the numbers.", "4, 4"), "completion": "8"},
        {"prompt": alpaca_prompt("Name a river in 中国."), "completion": "长江\u2028"},
    ],
}
FEATURES = {
    "alpaca": Features({"instruction": TEXT, "input": TEXT, "output": TEXT}),
    "self-instruct": Features(
        {
            "id": TEXT,
            "instruction": TEXT,
            "instances": List({"input": TEXT, "output": TEXT}),
            "is_classification": Value("bool"),
        }
    ),
    "sharegpt": Features({"conversations": List({"from": TEXT, "value": TEXT})}),
    "messages": Features({"messages": List({"role": TEXT, "content": TEXT})}),
    "prompt-completion": Features({"prompt": TEXT, "completion": TEXT}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went on from imported tasks."""
    folder = tmp_path_factory.mktemp("export")
    source = folder / "imported.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, IMPORTED)))
    with RunStore(folder / "run") as store:
        assert import_tasks(store, source) == (3, 1)
    assert generate(folder / "run", settings(num=30, profile="magpie"), ScriptedEngine()).reason == "done"
    return folder / "run"


def call(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(export)
    return CliRunner().invoke(app, list(map(str, arguments)))


def exported(run: Path, name: str, out: Path) -> list[dict[str, Any]]:
    done = call(run, "--format", name, "--out", out)
    assert (done.exit_code, done.stdout.strip()) == (0, str(out))
    records: list[dict[str, Any]] = orjson.loads(out.read_bytes())
    assert f"{len(records)} records of " in done.stderr
    assert "1 tasks left out" in done.stderr
    return records


@pytest.mark.parametrize("name", EXPECTED)
def test_the_records_of_each_format(name: str, run: Path, tmp_path: Path) -> None:
    records = exported(run, name, tmp_path / "out.json")
    assert records[: len(EXPECTED[name])] == EXPECTED[name]
    with RunStore(run, read_only=True) as store:
        tasks = [task for task in store.accepted() if task.instances]
    assert len(records) == (len(tasks) if name == "self-instruct" else sum(len(task.instances) for task in tasks))


def test_alpaca_is_the_default_and_the_run_s_own_export(run: Path, tmp_path: Path) -> None:
    assert call(run, "--out", tmp_path / "out.json").exit_code == 0
    assert (tmp_path / "out.json").read_bytes() == pool(run)


def test_self_instruct_is_read_again(run: Path, tmp_path: Path) -> None:
    exported(run, "self-instruct", tmp_path / "out.json")
    with RunStore(run, read_only=True) as store:
        assert read_tasks(tmp_path / "out.json") == [
            task._replace(lineage=None) for task in store.accepted() if task.instances
        ]


def test_regen_has_the_scores_of_rouge_score(run: Path, tmp_path: Path) -> None:
    records = iter(exported(run, "regen", tmp_path / "out.json"))
    tokenize = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)._tokenizer.tokenize
    with RunStore(run, read_only=True) as store:
        before = [seed.instruction for seed in store.seeds()]
        tasks = list(store.accepted())
    tokens = [tokenize(each) for each in before]
    compared = 0
    for task in tasks:
        new = tokenize(task.instruction)
        scores = [rouge_scorer._score_lcs(new, each).fmeasure for each in tokens]
        best = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:10]
        for instance in task.instances:
            record = next(records)
            assert list(record) == [
                "instruction",
                "input",
                "output",
                "most_similar_instructions",
                "avg_similarity_score",
            ]
            assert tuple(record.values())[:3] == (task.instruction, *instance)
            assert list(record["most_similar_instructions"].items()) == list(
                {before[position]: scores[position] for position in best}.items()
            )
            assert record["avg_similarity_score"] == float(np.mean(scores))
            compared += 1
        before.append(task.instruction)  # a bare one too: it was accepted
        tokens.append(new)
    assert next(records, None) is None
    assert compared > 25


def test_regen_of_a_run_without_seeds(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, IMPORTED)))
    with RunStore(tmp_path / "run") as store:
        import_tasks(store, source)
    records = exported(tmp_path / "run", "regen", tmp_path / "out.json")
    assert [(each["most_similar_instructions"], each["avg_similarity_score"]) for each in records] == [
        ({}, 0.0),
        ({}, 0.0),
        ({"Add the numbers.": 0.0}, 0.0),
    ]


def test_chinese_is_compared_by_its_own_tokens() -> None:
    neighborhood = Neighborhood(["写一首诗", "写一首歌"], TOKENIZERS["zh"])
    found = neighborhood.join("写一首诗歌")
    assert found.nearest == pytest.approx({"写一首诗": 8 / 9, "写一首歌": 8 / 9})
    assert list(found.nearest) == ["写一首诗", "写一首歌"]
    assert found.mean == pytest.approx(8 / 9)
    assert neighborhood.join("写一首诗歌").nearest["写一首诗歌"] == 1.0


# All but regen as Parquet, which is refused.
WRITABLE = [
    (name, ending)
    for name in FORMATS
    for ending in ("json", "jsonl", "parquet")
    if (name, ending) != ("regen", "parquet")
]


@pytest.mark.parametrize(("name", "ending"), WRITABLE)
def test_datasets_loads_it(name: str, ending: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    assert call(run, "--format", name, "--out", out).exit_code == 0
    loader = "parquet" if ending == "parquet" else "json"
    rows = load_dataset(loader, data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    if name == "regen":
        columns = ["instruction", "input", "output", "most_similar_instructions", "avg_similarity_score"]
        assert rows.column_names == columns
        assert rows.features["avg_similarity_score"] == Value("float64")
    else:
        assert rows.features == FEATURES[name]
        assert rows.to_list()[: len(EXPECTED[name])] == EXPECTED[name]
    assert rows.num_rows >= 25


@pytest.mark.parametrize(("name", "ending"), WRITABLE)
def test_two_exports_are_the_same_bytes(name: str, ending: str, run: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{number}.{ending}" for number in range(2)]
    for out in outs:
        assert call(run, "--format", name, "--out", out).exit_code == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


def refusal(*arguments: object) -> str:
    error = call(*arguments).exception
    assert isinstance(error, UsageError)
    assert "\n" not in str(error)
    return str(error)


def test_wrong_use_is_one_line(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    six = "alpaca, regen, self-instruct, sharegpt, messages, prompt-completion"
    assert refusal(run, "--format", "chatml", "--out", out) == f"--format chatml: use one of {six}"
    assert "name a .json or .jsonl file" in refusal(run, "--format", "regen", "--out", tmp_path / "out.parquet")
    assert "run.sqlite is missing" in refusal(tmp_path / "nowhere", "--out", out)
    blocked = tmp_path / "file"
    blocked.touch()
    assert "the folder cannot be written to" in refusal(run, "--out", blocked / "out.json")
    assert "is a folder; name a file" in refusal(run, "--out", tmp_path)
    assert "run.sqlite: the name is reserved" in refusal(run, "--out", run / "run.sqlite")
    assert not out.exists()


def test_a_run_of_bare_instructions_writes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(orjson.dumps(IMPORTED[2]))
    with RunStore(tmp_path / "run") as store:
        import_tasks(store, source)
    before = sorted(tmp_path.iterdir())
    assert "nothing to export: only 1 bare" in refusal(tmp_path / "run", "--out", tmp_path / "out.json")
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_that_breaks_off_leaves_the_old_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selfinstruct_local.runs.export.similarity.top", stop)
    assert call(run, "--format", "regen", "--out", out).exit_code != 0
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_formats_import_nothing_heavy() -> None:
    code = (
        "import sys, selfinstruct_local.cli.export, selfinstruct_local.runs.export.write\n"
        "print([m for m in ('torch', 'transformers', 'numba', 'pydantic', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
