"""An arm ends whole, goes on where it was broken off, and costs nothing again; one engine serves all of them."""

import sys
from pathlib import Path

import pytest

from selfinstruct_local.config import GenerateSettings
from selfinstruct_local.engine import Completion, Engine, Request
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.store import RunStore
from tests.scripted_engine import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import yield_arms
from yield_arms import Arm, KeptEngine

MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}


def run_arm(arm: Arm, folder: Path, engine: ScriptedEngine, interrupt: Interrupt | None = None) -> bool:
    def started() -> Engine:
        return engine

    settings = GenerateSettings.model_validate({"num": 10**9, "patience": 10**9, **arm.flags})
    return yield_arms.run_arm(arm, folder / arm.name, settings, MODEL, started, interrupt or Interrupt())


def counts(folder: Path) -> tuple[int, int]:
    """Tokens, and accepted tasks, of a run that has nothing left to decide."""
    with RunStore(folder, read_only=True) as store:
        assert not store.undecided_completions()
        assert not store.unscored()
        totals = store.totals()
        return totals.completion_tokens, totals.accepted


@pytest.mark.parametrize("profile", ["alpaca", "self-instruct", "self-instruct-2022"])
def test_an_arm_ends_with_all_jobs_decided_and_costs_nothing_again(tmp_path: Path, profile: str) -> None:
    arm = Arm(profile, {"profile": profile}, tokens_per_job=50, tokens=600)
    engine = ScriptedEngine(in_flight=8)
    assert run_arm(arm, tmp_path, engine)
    tokens, _ = counts(tmp_path / profile)
    assert 600 <= tokens < 1200
    asked = len(engine.asked)
    assert run_arm(arm, tmp_path, engine)
    assert len(engine.asked) == asked


def test_an_arm_goes_on_to_its_tasks_and_gives_up_at_its_cap(tmp_path: Path) -> None:
    engine = ScriptedEngine(in_flight=8)
    assert run_arm(Arm("many", {"profile": "alpaca"}, 50, tokens=0, accepted=40, cap=10**6), tmp_path, engine)
    assert counts(tmp_path / "many")[1] >= 40
    assert run_arm(Arm("capped", {"profile": "alpaca"}, 50, tokens=0, accepted=10**6, cap=500), tmp_path, engine)
    assert counts(tmp_path / "capped")[0] < 1000


def test_an_arm_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    arm = Arm("alpaca", {"profile": "alpaca"}, 50, tokens=1500)
    interrupt = Interrupt()
    engine = ScriptedEngine(in_flight=8)
    answer = engine._answer

    def answer_and_break(request: Request) -> Completion:
        if engine.answered == 10:
            interrupt.signum = 2
        return answer(request)

    engine._answer = answer_and_break  # type: ignore[method-assign]
    assert not run_arm(arm, tmp_path, engine, interrupt)
    assert run_arm(arm, tmp_path, ScriptedEngine(in_flight=8))
    assert counts(tmp_path / "alpaca")[0] >= 1500


def test_one_engine_serves_all_arms_and_starts_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    closed = []

    class Closing(ScriptedEngine):
        def close(self) -> None:
            closed.append(self)

    def launch(_model: ChosenModel, _settings: GenerateSettings, _log: Path) -> Engine:
        launched.append(Closing())
        return launched[-1]

    monkeypatch.setattr(yield_arms, "launch", launch)
    kept = KeptEngine(ChosenModel(None), GenerateSettings(num=1), tmp_path / "engine.log", Interrupt())
    kept.close()
    assert not launched
    assert kept() is kept()
    kept.close()
    assert closed == launched
    assert len(launched) == 1
