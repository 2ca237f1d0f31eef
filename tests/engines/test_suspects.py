"""Requests that a real engine process dies or hangs of: found, given up, noted; all others are answered."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.cli.running import run_on_display
from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.engines.process import EngineProcess
from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.suspects import MAX_DEATHS_ALONE, MAX_DEATHS_UNPROVEN, PROBE, Suspects, Suspicion
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.generate import launch
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.run import Outcome
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.models import check_model_folder
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from tests.engines.test_process import requests, start
from tests.generate.killed_run import MODEL
from tests.scripted_engine import ScriptedEngine, answer

EXIT_CODE = 7


class Fatal(ScriptedEngine):
    """Ends its process, or hangs, when it is about to answer one of some jobs; all jobs for None."""

    def __init__(self, jobs: tuple[int, ...] | None, *, hangs: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self._jobs = jobs
        self._hangs = hangs

    def _answer(self, request: Request) -> Completion:
        if self._jobs is None or request.key.job in self._jobs:
            if self._hangs:
                time.sleep(1000)
            os._exit(EXIT_CODE)
        return super()._answer(request)


class Memory:
    """A record of deaths that outlives engines."""

    def __init__(self) -> None:
        self.known: dict[RequestKey, Suspicion] = {}
        self.reasons: list[str] = []

    def suspicions(self) -> Mapping[RequestKey, Suspicion]:
        return self.known

    def note_death(self, suspicions: Mapping[RequestKey, Suspicion], reason: str) -> None:
        self.known |= suspicions
        self.reasons.append(reason)


def start_noted(make_engine: Any, memory: Memory, **settings: Any) -> EngineProcess:
    return EngineProcess(make_engine, EngineSettings(**settings), {"engine": "scripted"}, deaths=memory)


def all_of(engine: EngineProcess, count: int) -> dict[int, Completion]:
    found = [each for batch in engine.generate(requests(count)) for each in batch]
    assert sorted(each.key.job for each in found) == list(range(count))
    return {each.key.job: each for each in found}


@pytest.mark.parametrize(
    ("jobs", "in_flight", "deaths"), [((3,), 1, 2), ((3,), 4, 3), ((17,), 16, 4), ((0, 21, 39), 16, 10), ((39,), 40, 4)]
)
def test_only_the_request_that_kills_the_engine_is_given_up(jobs: tuple[int, ...], in_flight: int, deaths: int) -> None:
    memory = Memory()
    with start_noted(partial(Fatal, jobs, in_flight=in_flight), memory, in_flight=in_flight) as engine:
        found = all_of(engine, 40)
    for request in requests(40):
        if request.key.job not in jobs:
            assert found[request.key.job] == answer(request)
    for job in jobs:
        assert (found[job].finish_reason, found[job].text) == (FinishReason.ABORT, "")
        assert f"exited with code {EXIT_CODE}" in found[job].given_up
    assert len(memory.reasons) <= deaths


def test_a_request_that_hangs_the_engine_is_given_up() -> None:
    with start(partial(Fatal, (2,), hangs=True), hang_seconds=0.7) as engine:
        found = all_of(engine, 9)
    assert {job for job, completion in found.items() if completion.given_up} == {2}
    assert "for 1 s" in found[2].given_up


@pytest.mark.parametrize("in_flight", [1, 4])
def test_of_an_engine_that_dies_of_everything_no_request_is_given_up(
    in_flight: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        start(partial(Fatal, None, in_flight=in_flight), in_flight=in_flight) as engine,
        pytest.raises(EngineDeadError, match=r"\b3 time\(s\)"),
    ):
        list(engine.generate(requests(12)))
    assert "given up" not in caplog.text


def test_without_others_a_request_is_given_up_in_the_next_start() -> None:
    """It may be the only one that is left of a run."""
    memory = Memory()
    with (
        start_noted(partial(Fatal, (0,)), memory, in_flight=4) as engine,
        pytest.raises(EngineDeadError, match="exited with code 7"),
    ):
        list(engine.generate(requests(1)))
    with start_noted(partial(Fatal, (0,)), memory, in_flight=4) as engine:
        assert all_of(engine, 1)[0].given_up
    assert len(memory.reasons) == MAX_DEATHS_UNPROVEN
    # A second one in a row is not: that is how an engine looks that answers nothing.
    suspects = Suspects()
    first, second, third = requests(3)
    assert [len(suspects.blame([first.key], "died")) for _ in range(MAX_DEATHS_UNPROVEN)] == [0, 0, 0, 0, 1]
    assert not any(suspects.blame([second.key], "died") for _ in range(20))
    suspects.answered(third)
    assert [each.key for each in suspects.give_up([second.key])] == [second.key]


def test_suspects_go_last_and_in_small_groups() -> None:
    suspects = Suspects()
    everyone = requests(80)
    suspects.blame([request.key for request in everyone[:64]], "died")
    assert suspects.select(everyone, []) == everyone[64:]
    assert suspects.select(everyone[:64], [everyone[70].key]) == []
    assert suspects.select(everyone[:64], []) == everyone[:8]
    assert suspects.select(everyone, [everyone[0].key]) == []
    suspects.blame([request.key for request in everyone[:8]], "died")
    assert suspects.select(everyone[:64], []) == everyone[8:16]  # the less suspicious
    assert suspects.select(everyone[:8], []) == everyone[:1]


def test_an_engine_that_broke_after_some_answers_gets_no_request_given_up() -> None:
    suspects = Suspects()
    asked, one, other = requests(3)
    suspects.answered(asked)
    for _ in range(MAX_DEATHS_ALONE):
        assert suspects.blame([one.key], "died") == []
        assert suspects.select([one], []) == [
            replace(asked, key=PROBE, sampling=replace(asked.sampling, max_tokens=1)),
        ]
    assert suspects.blame([PROBE], "died") == []
    assert suspects.give_up([one.key, other.key]) == []
    assert suspects.select([other, one], [PROBE]) == []
    suspects.answered(replace(asked, key=PROBE))
    assert [each.key for each in suspects.give_up([one.key, other.key])] == [one.key]


# In a run.


@pytest.fixture
def chosen(bare_model: Path, monkeypatch: pytest.MonkeyPatch) -> launch.ChosenModel:
    """A model whose engine dies of job 3."""
    monkeypatch.setattr(launch, "VllmEngine", _fatal_in_place_of_vllm)
    return launch.ChosenModel(check_model_folder(bare_model))


def _fatal_in_place_of_vllm(_folder: object, settings: Any, **_: object) -> Fatal:
    return Fatal((3,), in_flight=settings.in_flight)


def settings(**flags: object) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"profile": "alpaca", "num": 12, "patience": 30, **flags})


def generate(folder: Path, chosen: launch.ChosenModel, wanted: GenerateSettings) -> str:
    """As the command does it."""
    ended: list[Outcome] = []
    with RunStore(folder) as store:
        seeds = open_run(store, wanted, MODEL, [seed_file()])
        run_on_display(store, wanted, chosen, seeds, ended.append)
    return ended[0].reason


@pytest.mark.parametrize(("in_flight", "window"), [(1, 1), (1, 8), (4, 8)])
@pytest.mark.parametrize("restarts", [0, 3])
def test_a_run_gets_past_a_job_that_kills_the_engine(
    restarts: int, in_flight: int, window: int, chosen: launch.ChosenModel, tmp_path: Path
) -> None:
    wanted = settings(in_flight=in_flight, window=window, restarts=restarts)
    starts = 0
    while True:
        starts += 1
        assert starts <= 1 + MAX_DEATHS_UNPROVEN
        try:
            assert generate(tmp_path, chosen, wanted) == "done"
            break
        except EngineDeadError:
            assert restarts == 0
    assert starts == 1 or restarts == 0
    with RunStore(tmp_path, read_only=True) as store:
        rows = store._db.execute("SELECT job, finish_reason, given_up FROM completions WHERE given_up <> ''").fetchall()
        assert len(store.pool()) >= 12
        assert store.suspicions() == {}
        noted = store._db.execute("SELECT alone, reason FROM deaths WHERE job = 3").fetchall()
    ((job, reason, why),) = rows
    assert (job, reason) == (3, "abort")
    assert f"exited with code {EXIT_CODE}" in why
    assert noted[0][0] >= MAX_DEATHS_ALONE
    assert str(EXIT_CODE) in noted[0][1]
