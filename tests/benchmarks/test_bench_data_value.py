"""Whether data helps: equal tokens, intervals that know tasks and training seeds, and work that is never done twice."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.models.adapter import TRAINING_MANIFEST
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_data_value
from tuning_arms import SEEDS, SETTINGS, make_arms, nearest_cut, parse_arms, store_rows, trainable
from tuning_figures import Asked, measure, read_asked


def asked(nats: Any) -> Asked:
    """Results with that loss of each task, all of one token, stopped by themselves where the loss is below 1."""
    values = np.array(nats, dtype=np.float64)
    return Asked(values, np.ones_like(values), (values < 1).astype(np.float64), values, "")


@pytest.mark.parametrize(("wanted", "rows"), [(0, 1), (10, 1), (14, 1), (16, 2), (29, 3), (9999, 4)])
def test_the_cut_is_the_nearest(wanted: int, rows: int) -> None:
    assert nearest_cut([10, 10, 10, 10], wanted) == rows


def test_the_seeds_have_as_many_trainable_tokens_as_the_first_arm(tmp_path: Path, embedded_model: ModelFolder) -> None:
    pytest.importorskip("transformers")
    generate(tmp_path / "run", settings(num=20), ScriptedEngine())
    many = [{"instruction": f"Say {number}.", "input": "", "output": f"{number} words " * 30} for number in range(9)]
    (tmp_path / "file.json").write_bytes(orjson.dumps(many))
    arms = make_arms({"file": tmp_path / "file.json", "run": tmp_path / "run"}, 9, embedded_model)
    assert list(arms) == ["file", "run", SEEDS]
    assert [len(arms[name]) for name in ("file", "run")] == [9, 9]
    assert len({row["instruction"] for row in arms["run"]}) == 9
    sums = {name: sum(trainable(rows, embedded_model)) for name, rows in arms.items()}
    # Within half of the case at the cut.
    assert abs(sums["file"] - sums[SEEDS]) <= max(trainable(arms[SEEDS], embedded_model)) / 2 + 50
    assert sums["file"] > 9 * 60
    with pytest.raises(UsageError, match=r"--arm file=.*has 9 tasks with an output; lower --num 10"):
        make_arms({"file": tmp_path / "file.json"}, 10, embedded_model)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["new"], "write NAME=PATH"),
        (["a/b=x"], "write NAME=PATH"),
        (["new=x", "new=y"], "'new' is taken"),
        (["seeds=x"], "'seeds' is taken"),
    ],
)
def test_arms_that_cannot_be_meant_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_arms(texts)


def test_results_of_other_data_are_not_mixed(tmp_path: Path) -> None:
    row = {"instruction": "a", "input": "", "output": "b"}
    store_rows(tmp_path / "new.json", [row])
    store_rows(tmp_path / "new.json", [row])
    with pytest.raises(UsageError, match="holds other tasks"):
        store_rows(tmp_path / "new.json", [row, row])


def test_the_interval_of_one_seed_is_that_of_the_tasks() -> None:
    losses = np.random.default_rng(1).normal(2.0, 0.5, (1, 250))
    found = measure(asked(losses), 0)["loss"]
    low, high = np.percentile(found.drawn, (2.5, 97.5))
    error = 1.96 * losses.std() / np.sqrt(250)
    assert found.value == pytest.approx(losses.mean())
    assert (low, high) == pytest.approx((losses.mean() - error, losses.mean() + error), abs=0.1 * error)


def test_seeds_that_differ_widen_the_interval_and_tasks_that_differ_cancel_in_a_difference() -> None:
    tasks = np.random.default_rng(1).normal(2.0, 0.5, 250)
    untuned = measure(asked([tasks]), 0)["loss"]
    alike = measure(asked([tasks - 0.5] * 3), 1)["loss"].less(untuned)
    assert np.ptp(alike.drawn) == pytest.approx(0, abs=1e-9)
    assert alike.value == pytest.approx(-0.5)
    apart = measure(asked([tasks - 0.8, tasks - 0.5, tasks - 0.2]), 1)["loss"].less(untuned)
    assert apart.value == pytest.approx(-0.5)
    # The standard error of a mean of three, from their sample variance.
    assert apart.drawn.std() == pytest.approx(np.std([-0.8, -0.5, -0.2], ddof=1) / np.sqrt(3), rel=0.1)


def test_stop_rate_and_loss_are_those_of_the_answers() -> None:
    figures = measure(asked([[0.5, 3.0, 0.5, 2.0]]), 0)
    assert (figures["loss"].value, figures["stop rate"].value) == (1.5, 0.5)


def test_what_has_a_result_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands are recorded in place of run: each takes minutes; `eval` leaves what it leaves."""
    pytest.importorskip("transformers")
    called: list[list[str]] = []

    def selfinstruct(*arguments: object) -> None:
        words = [str(each) for each in arguments]
        called.append(words)
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True)
        if words[0] == "train":
            (out / TRAINING_MANIFEST).write_text("{}")
            (out / "checkpoint-9").mkdir()
            return
        loss = 2.0 if out.name.startswith("untuned") else 1.0 + 0.1 * int(out.name[-1])
        answer = {"nats": 5 * loss, "supervised_tokens": 5, "finish_reason": "stop", "rouge_l": 0.5}
        lines = [orjson.dumps({"answers": [answer]})] * 3
        (out / "answers.jsonl").write_bytes(b"\n".join(lines))
        record = {"cases_sha256": "0", "settings": {"max_tokens": int(words[words.index("--max-tokens") + 1])}}
        (out / "eval.json").write_bytes(orjson.dumps(record))

    rows = [{"instruction": f"Say {number}.", "input": "", "output": f"{number} words"} for number in range(9)]
    (tmp_path / "tasks.json").write_bytes(orjson.dumps(rows))
    monkeypatch.setattr(bench_data_value, "selfinstruct", selfinstruct)
    tasks = str(tmp_path / "tasks.json")
    arguments = ["--arm", f"new={tasks}", "--num", "4", "--seeds", "2", "--expert", tasks]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--folder", str(tmp_path / "out")])
    bench_data_value.main()
    first = capsys.readouterr().out
    assert [words[0] for words in called] == ["eval"] * 2 + ["train", "eval"] * 4
    for words in called:
        if words[0] == "train":
            assert {f"--{name.replace('_', '-')}" for name in SETTINGS} < set(words)
    assert not list((tmp_path / "out").rglob("checkpoint-*"))
    assert "| new | 4 | " in first
    assert " | 1.050 [1.000, 1.100] | -0.950 [-1.000, -0.900] | 0.000 [-0.100, 0.100] | 1.000 [1.000, 1.000] |" in first
    (tmp_path / "out" / "asked" / "new-1" / "eval.json").unlink()
    (tmp_path / "out" / "asked" / "new-1" / "answers.jsonl").unlink()
    (tmp_path / "out" / "asked" / "new-1").rmdir()
    called.clear()
    bench_data_value.main()
    assert [words[0] for words in called] == ["eval"]
    assert capsys.readouterr().out == first
    # Nor are answers of one length limit reported as those of another.
    monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--max-tokens", "9", "--folder", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        bench_data_value.main()
    error = capsys.readouterr().err
    assert "--max-tokens 9" in error
    assert "at most 256" in error
    assert "--folder" in error


def test_answers_are_read_as_eval_writes_them(tmp_path: Path) -> None:
    record = {"cases_sha256": "0", "settings": {"max_tokens": 8}}
    for seed, reasons in enumerate((["stop", "length"], ["stop", "stop"])):
        out = tmp_path / str(seed)
        out.mkdir()
        (out / "eval.json").write_bytes(orjson.dumps(record))
        rows = [
            {"answers": [{"nats": 1.0 + seed, "supervised_tokens": 2, "finish_reason": reason, "rouge_l": 0.1}]}
            for reason in reasons
        ]
        (out / "answers.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = read_asked([tmp_path / "0", tmp_path / "1"], 8)
    assert found.stopped.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert found.nats.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert found.cases == "0"
    assert measure(found, 0)["loss"].by_seed == [0.5, 1.0]
    (tmp_path / "1" / "eval.json").write_bytes(orjson.dumps({**record, "cases_sha256": "1"}))
    with pytest.raises(UsageError, match="were asked different tasks"):
        read_asked([tmp_path / "0", tmp_path / "1"], 8)
