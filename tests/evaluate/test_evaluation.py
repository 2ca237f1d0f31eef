"""The whole way with scripted answers: what is asked of whom, what is made of it, and what is left behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from selfinstruct_local.cli.eval_ import eval_
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey, Sampling
from selfinstruct_local.errors import EngineDeadError, RunError
from selfinstruct_local.evaluate.answers import MAX_TRIES, ask
from selfinstruct_local.evaluate.evaluation import ANSWERS, SUMMARY
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.prompts import load_prompt
from tests.scripted_engine import ScriptedEngine

TASKS: list[dict[str, Any]] = [
    {"instruction": "Name a river.", "input": "", "output": "The Nile"},
    {"instruction": "Is it good?", "input": "I love it.", "output": "Yes", "is_classification": True},
    {"instruction": "Say what a river is.", "input": "", "output": "A river is water that runs to the sea."},
    {"instruction": "Say it.", "input": "", "output": "it"},
]
# What the adapter answers; the base says "The Nile" to everything, to its last token, and so does the last.
TUNED = ["A Nile", " Yes. ", "A river is water.", "The Nile"]
Writer = Callable[[Request], tuple[str, FinishReason]]


class WritingEngine(ScriptedEngine):
    """Writes what it is told for each request."""

    def __init__(self, write: Writer) -> None:
        super().__init__()
        self.closed = False
        self._write = write

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        return Completion(request.key, *self._write(request), prompt_tokens=9, completion_tokens=4)

    def close(self) -> None:
        self.closed = True


class Engines:
    """Starts engines in place of vLLM, one at a time, and remembers them by whom they were started for."""

    def __init__(self, judge: Path, *, judging: Writer | None = None) -> None:
        self.started: list[tuple[ChosenModel, GenerateSettings, WritingEngine]] = []
        self._judge = judge
        self._judging = judging or self._prefers_the_first_place

    def __call__(self, model: ChosenModel, settings: GenerateSettings, log: Path) -> WritingEngine:
        assert all(engine.closed for _, _, engine in self.started)
        assert log.parent.is_dir()
        assert model.folder
        writes = self._tuned if model.adapter else self._base
        engine = WritingEngine(self._judging if model.folder.path == self._judge else writes)
        self.started.append((model, settings, engine))
        return engine

    def _base(self, _: Request) -> tuple[str, FinishReason]:
        return "\nThe Nile", FinishReason.LENGTH

    def _tuned(self, request: Request) -> tuple[str, FinishReason]:
        return TUNED[request.key.job], FinishReason.STOP

    def _prefers_the_first_place(self, request: Request) -> tuple[str, FinishReason]:
        """But for the second task, where it is sure of the answer that is right."""
        (turn,) = request.turns
        right = "A" if "Answer A: Yes." in turn.content else "B" if "Answer B: Yes." in turn.content else "A"
        return right, FinishReason.STOP


@pytest.fixture
def judge(tiny_model: ModelFolder, tmp_path: Path) -> Path:
    """Another folder with the same model."""
    folder = tmp_path / "judge"
    folder.symlink_to(tmp_path / "judge-model")
    folder.resolve().mkdir()
    for path in tiny_model.path.iterdir():
        (folder / path.name).symlink_to(path)
    return folder.resolve()


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    file = tmp_path / "held.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, TASKS)))
    return file


def call(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(eval_)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def engines(judge: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines(judge)
    monkeypatch.setattr("selfinstruct_local.generate.launch.launch", engines)
    return engines


def test_two_contenders_and_a_judge(
    tiny_model: ModelFolder, adapter: Path, judge: Path, held_out: Path, engines: Engines, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--model", tiny_model.path, "--model", adapter, "--judge", judge, "--data", held_out, "--out", out]
    done = call(*options, "--max-tokens", 32, "--json")
    assert done.exit_code == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert told == orjson.loads((out / SUMMARY).read_bytes())
    assert (told["data"], told["cases"], told["dropped"]) == ([str(held_out)], 4, {})
    assert told["settings"]["max_tokens"] == 32
    base, tuned = told["evaluated_models"]

    assert (base["name"], tuned["name"]) == (tiny_model.path.name, "adapter")
    assert base["model_fingerprint"] == tuned["model_fingerprint"] == tiny_model.fingerprint
    assert base["adapter_fingerprint"] is None
    assert len(tuned["adapter_fingerprint"]) == 64
    assert (base["template"], tuned["template"]) == ("chat", "chat")
    assert base["engine"] == {"engine": "scripted"}

    # ROUGE-L by hand: base 1, 0, 2/11 (1 word of 2 and of 9), 0; tuned 1/2 (1 of 2 and of 2), 1, 8/13 (4 of 4, of 9), 0
    assert base["rouge_l"]["mean"] == pytest.approx((1 + 0 + 2 / 11 + 0) / 4)
    assert tuned["rouge_l"]["mean"] == pytest.approx((1 / 2 + 1 + 8 / 13 + 0) / 4)
    assert tuned["rouge_l"]["low"] <= tuned["rouge_l"]["mean"] <= tuned["rouge_l"]["high"]
    assert base["rouge_l_difference"] is None
    difference = tuned["rouge_l_difference"]
    assert difference["mean"] == pytest.approx(tuned["rouge_l"]["mean"] - base["rouge_l"]["mean"])
    assert difference["low"] < difference["mean"] < difference["high"]
    # "The Nile", "Yes" and "it" are short enough for labels.
    assert base["exact_match"] == {"matched": 1, "labelled": 3}
    assert tuned["exact_match"] == {"matched": 1, "labelled": 3}
    assert (base["stop_rate"], tuned["stop_rate"]) == (0.0, 1.0)
    assert base["mean_tokens"] == 4
    assert base["loss"] != tuned["loss"]
    assert base["perplexity"] == pytest.approx(torch.tensor(base["loss"]).double().exp().item())
    # The last answers are the same, two are judged by their place, one by what it says.
    assert "judged" not in base
    assert tuned["judged"] == {
        "wins": 1, "ties": 3, "losses": 0, "unjudged": 0, "consistent": 1, "asked": 3, "consistency": 1 / 3,
    }  # fmt: skip
    assert told["judge"]["name"] == "judge-model"

    rows = [orjson.loads(line) for line in (out / ANSWERS).read_bytes().splitlines()]
    assert [(row["instruction"], row["input"], row["reference"]) for row in rows] == [
        (task["instruction"], task["input"], task["output"]) for task in TASKS
    ]
    assert [row["is_label"] for row in rows] == [True, True, False, True]
    assert [row["answers"][1]["answer"] for row in rows] == [each.strip() for each in TUNED]
    assert [row["answers"][1]["exact_match"] for row in rows] == [False, True, None, False]
    assert [row["answers"][0]["finish_reason"] for row in rows] == ["length"] * 4
    assert [row["answers"][1]["judged"]["outcome"] for row in rows] == ["tie", "win", "tie", "tie"]
    for number, evaluated in enumerate((base, tuned)):
        nats = sum(row["answers"][number]["nats"] for row in rows)
        tokens = sum(row["answers"][number]["supervised_tokens"] for row in rows)
        assert evaluated["supervised_tokens"] == tokens
        assert evaluated["loss"] == pytest.approx(nats / tokens)
        size = sum(len(task["output"]) for task in TASKS)
        assert evaluated["bits_per_byte"] == pytest.approx(nats / size * 1.4426950408889634)

    chosen = [(model.folder and model.folder.path, model.adapter) for model, _, _ in engines.started]
    assert chosen == [(tiny_model.path, None), (tiny_model.path, adapter.resolve()), (judge, None)]
    assert all(engine.closed for _, _, engine in engines.started)
    assert all(request.sampling.temperature == 0 for request in engines.started[0][2].asked)
    assert {request.sampling.max_tokens for request in engines.started[1][2].asked} == {32}
    assert len(engines.started[2][2].asked) == 6


def test_the_judge_is_asked_with_the_users_own_prompt(
    tiny_model: ModelFolder, adapter: Path, judge: Path, held_out: Path, engines: Engines, tmp_path: Path
) -> None:
    text = f"Be strict.\n{load_prompt('pairwise_judge').template}"
    for name in ("pairwise_judge", "alpaca"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.txt").write_text(f"Be strict.\n{load_prompt(name).template}", encoding="utf-8")
    options = ["--model", tiny_model.path, "--model", adapter, "--judge", judge, "--data", held_out, "--json"]
    done = call(*options, "--prompts", tmp_path / "mine")
    assert done.exit_code == 0, done.stderr
    assert "does not use alpaca.txt" in done.stderr
    asked = engines.started[2][2].asked
    assert len(asked) == 6
    assert all(request.turns[0].content.startswith("Be strict.") for request in asked)
    assert orjson.loads(done.stdout)["judge"]["prompt_texts"] == {"pairwise_judge": {"text": text, "own": True}}


def test_the_table(tiny_model: ModelFolder, adapter: Path, judge: Path, held_out: Path, engines: Engines) -> None:
    options = ["--model", tiny_model.path, "--model", adapter, "--judge", judge, "--data", held_out]
    done = call(*options, "--max-tokens", 32)
    assert done.exit_code == 0, done.stderr
    lines = {line[:30].strip(): line[30:].split() for line in done.stdout.splitlines()}
    assert lines["ROUGE-L F"] == ["0.295", "0.529"]
    assert lines["stopped by itself"] == ["0%", "100%"]
    assert done.stdout.count("1-3-0") == 1
    assert f"{tiny_model.path.name}: template chat" in done.stderr
    assert engines.started
    assert "ROUGE" not in done.stderr


def test_one_contender_needs_no_other(tiny_model: ModelFolder, held_out: Path, engines: Engines) -> None:
    done = call("--model", tiny_model.path, "--data", held_out, "--template", "alpaca", "--num", 2)
    assert done.exit_code == 0, done.stderr
    assert "minus" not in done.stdout
    (_, _, engine), *others = engines.started
    assert others == []
    assert len(engine.asked) == 2
    assert all(request.prompt.endswith("### Response:") for request in engine.asked)


def test_all_are_measured_on_what_fits_all(
    tiny_model: ModelFolder, adapter: Path, tmp_path: Path, engines: Engines
) -> None:
    file = tmp_path / "held.jsonl"
    long = {"instruction": "word " * 400, "output": "no"}
    file.write_bytes(b"\n".join(map(orjson.dumps, [TASKS[0], long, *TASKS[1:]])))
    options = ["--model", tiny_model.path, "--model", adapter, "--data", file, "--max-tokens", 32]
    done = call(*options, "--max-model-len", 256, "--json")
    assert done.exit_code == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert (told["cases"], told["dropped"]) == (4, {"longer than 256 tokens with --max-tokens 32": 1})
    assert [len(engine.asked) for _, _, engine in engines.started] == [4, 4]
    done = call(*options[:-2], "--max-tokens", 250, "--max-model-len", 256)
    assert "no task is left" in str(done.exception)


def test_what_the_judge_does_not_say_is_counted(
    tiny_model: ModelFolder, adapter: Path, judge: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(judge, judging=lambda _: ("", FinishReason.REFUSED))
    monkeypatch.setattr("selfinstruct_local.generate.launch.launch", engines)
    options = ["--model", tiny_model.path, "--model", adapter, "--judge", judge, "--data", held_out, "--json"]
    done = call(*options)
    assert done.exit_code == 0, done.stderr
    judged = orjson.loads(done.stdout)["evaluated_models"][1]["judged"]
    assert (judged["unjudged"], judged["ties"], judged["consistency"]) == (3, 1, None)
    # Two answers need more room than one.
    assert [settings.max_model_len for _, settings, _ in engines.started] == [2048, 2048, 2048]


@pytest.mark.parametrize("judged", [False, True])
def test_an_engine_that_dies_ends_it_and_writes_nothing(
    tiny_model: ModelFolder, adapter: Path, judge: Path, held_out: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, *, judged: bool,
) -> None:  # fmt: skip
    def die(_: Request) -> tuple[str, FinishReason]:
        message = "the engine stopped: scripted"
        raise EngineDeadError(message)

    engines = Engines(judge, judging=die)
    monkeypatch.setattr("selfinstruct_local.generate.launch.launch", engines)
    if not judged:
        monkeypatch.setattr(engines, "_base", die)
    out = tmp_path / "out"
    options = ["--model", tiny_model.path, "--model", adapter, "--judge", judge, "--data", held_out, "--out", out]
    exception = call(*options).exception
    assert isinstance(exception, EngineDeadError)
    assert str(exception) == "the engine stopped: scripted"
    assert [engine.closed for _, _, engine in engines.started] == [True] * (3 if judged else 1)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("aborts", "ends_well"), [(MAX_TRIES - 1, True), (MAX_TRIES, False)])
def test_what_is_aborted_is_asked_again(
    tiny_model: ModelFolder, held_out: Path, engines: Engines, monkeypatch: pytest.MonkeyPatch, *,
    aborts: int, ends_well: bool,
) -> None:  # fmt: skip
    left = {2: aborts}

    def stumble(request: Request) -> tuple[str, FinishReason]:
        if left.get(request.key.job, 0):
            left[request.key.job] -= 1
            return "torn", FinishReason.ABORT
        return "The Nile", FinishReason.STOP

    monkeypatch.setattr(engines, "_base", stumble)
    done = call("--model", tiny_model.path, "--data", held_out, "--json")
    if ends_well:
        assert orjson.loads(done.stdout)["evaluated_models"][0]["stop_rate"] == 1
    else:
        assert isinstance(done.exception, RunError)
        assert str(done.exception) == f"the engine aborted 1 of 4 requests {MAX_TRIES} times"


def test_a_request_that_is_given_up_ends_the_evaluation_with_the_reason() -> None:
    class GivingUp(ScriptedEngine):
        def _answer(self, request: Request) -> Completion:
            return replace(super()._answer(request), finish_reason=FinishReason.ABORT, given_up="it dies of it")

    wanted = [Request(RequestKey(4, "answer", 0), "a", Sampling(0.0, 1.0, 4))]
    with pytest.raises(RunError, match="request 4/answer/0 has no answer: it dies of it"):
        ask(GivingUp(), wanted, lambda: True, lambda _: None)


def test_chinese(tiny_model: ModelFolder, judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "held.jsonl"
    file.write_bytes(orjson.dumps({"instruction": "写一首诗的题目。", "output": "春江花月夜"}))
    asked: list[Any] = []

    def judging(request: Request) -> tuple[str, FinishReason]:
        asked.append(request)
        return "平局", FinishReason.STOP

    engines = Engines(judge, judging=judging)
    monkeypatch.setattr("selfinstruct_local.generate.launch.launch", engines)
    answers = iter(["春江", "春江花月夜。"])
    monkeypatch.setattr(engines, "_base", lambda _: (next(answers), FinishReason.STOP))
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_model.path.iterdir():
        (other / path.name).symlink_to(path)
    options = ["--model", tiny_model.path, "--model", other, "--judge", judge, "--data", file, "--lang", "zh", "--json"]
    done = call(*options)
    assert done.exit_code == 0, done.stderr
    first, second = orjson.loads(done.stdout)["evaluated_models"]
    assert first["rouge_l"]["mean"] == pytest.approx(4 / 7)
    assert second["rouge_l"]["mean"] == 1.0
    assert [each["exact_match"]["matched"] for each in (first, second)] == [0, 1]
    assert (second["judged"]["ties"], second["judged"]["consistency"]) == (1, 1.0)
    assert all("指令：写一首诗的题目。\n输入：无\n" in request.turns[0].content for request in asked)
