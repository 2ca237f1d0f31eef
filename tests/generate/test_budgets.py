"""Budgets of tokens, requests and minutes: where they end a run, what a larger one does, and what the command says."""

import re
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, Engine, Request
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.generate.run import EXPORT, Outcome, run, spent_budget
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.models import check_model_folder
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from tests.conftest import RunCli
from tests.generate.test_run import generate, pool, settings
from tests.scripted_engine import ScriptedEngine
from tests.scripted_server import ScriptedServer


def totals(folder: Path) -> tuple[int, int]:
    """Completions and tokens that a run holds."""
    with RunStore(folder, read_only=True) as store:
        told = store.totals()
    return told.completions, told.completion_tokens


def starts(folder: Path) -> list[str | None]:
    with RunStore(folder, read_only=True) as store:
        return [session.outcome for session in store.sessions()]


def unwanted() -> Engine:
    pytest.fail("the engine was started")


def start_without_engine(folder: Path, chosen: GenerateSettings) -> Outcome:
    with RunStore(folder) as store:
        seeds = store.seeds()
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        return run(store, chosen, seeds, unwanted, display, Interrupt())


@pytest.mark.parametrize(
    ("flags", "spent", "wanted"),
    [
        ({}, (10**9, 10**9, 1e9), ""),
        ({"token_budget": 100}, (99, 10**9, 1e9), ""),
        ({"token_budget": 100}, (100, 0, 0.0), "tokens"),
        ({"request_budget": 5}, (10**9, 4, 1e9), ""),
        ({"request_budget": 5}, (0, 5, 0.0), "requests"),
        ({"minutes": 0.5}, (10**9, 10**9, 29.9), ""),
        ({"minutes": 0.5}, (0, 0, 30.0), "minutes"),
        ({"token_budget": 1, "request_budget": 1, "minutes": 0.01}, (1, 1, 1.0), "tokens"),
    ],
)
def test_the_budget_that_is_spent(flags: dict[str, float], spent: tuple[int, int, float], wanted: str) -> None:
    assert spent_budget(settings(**flags), *spent) == wanted


@pytest.mark.parametrize(("flag", "reason"), [("token_budget", "tokens"), ("request_budget", "requests")])
def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(tmp_path: Path, flag: str, reason: str) -> None:
    generate(tmp_path / "straight", settings(), ScriptedEngine())
    whole = dict(zip(("requests", "tokens"), totals(tmp_path / "straight"), strict=True))[reason]
    folder = tmp_path / "run"
    for part in (3, 2):
        budget = whole // part
        outcome = generate(folder, settings(**{flag: budget}), ScriptedEngine(in_flight=2))
        assert outcome.reason == reason
        spent = dict(zip(("requests", "tokens"), totals(folder), strict=True))[reason]
        # Over all starts, and no more than what came with the last batch.
        assert budget <= spent < budget + (2 if reason == "requests" else 200)
        assert (folder / EXPORT).exists()
        # The same again starts no engine.
        assert start_without_engine(folder, settings(**{flag: budget})) == Outcome(reason)
    assert generate(folder, settings(**{flag: 10 * whole}), ScriptedEngine()).reason == "done"
    assert starts(folder) == [reason, reason, "done"]
    assert pool(folder) == pool(tmp_path / "straight")
    # What is done is done, whatever its budget.
    assert start_without_engine(folder, settings(**{flag: 1})).reason == "done"


def test_minutes_are_those_of_this_start(tmp_path: Path) -> None:
    generate(tmp_path / "straight", settings(), ScriptedEngine())
    folder = tmp_path / "run"
    outcomes = [generate(folder, settings(minutes=0.2 / 60), ScriptedEngine(latency=0.06)).reason for _ in range(2)]
    assert outcomes == ["minutes", "minutes"]  # each had some
    assert generate(folder, settings(), ScriptedEngine()).reason == "done"
    assert pool(folder) == pool(tmp_path / "straight")


def test_a_signal_is_not_taken_for_a_budget(tmp_path: Path) -> None:
    interrupt = Interrupt()

    class Signalling(ScriptedEngine):
        def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
            for batch in super().generate(requests):
                yield batch
                if self.answered > 5:
                    interrupt.signum = 15

    assert generate(tmp_path, settings(request_budget=10**6), Signalling(), interrupt).reason == "interrupted"


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [("--token-budget", 60, "tokens"), ("--request-budget", 3, "requests"), ("--minutes", 0.005, "minutes")],
)
def test_the_command_names_the_flag_and_exits_3(
    tmp_path: Path, cli: RunCli, flag: str, value: float, reason: str
) -> None:
    with ScriptedServer(latency=0.1) as server:
        words = (
            "generate",
            "--run",
            tmp_path,
            "--endpoint",
            server.url,
            "--num",
            30,
            "--profile",
            "alpaca",
            "--window",
            8,
            "--in-flight",
            2,
        )
        done = cli(*words, flag, value)
        assert done.returncode == 3, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"selfinstruct: the budget of {reason} is spent at ")
        assert re.search(rf" of 30 tasks; .*same command.* {flag} ", last)
        assert done.stdout == f"{tmp_path / EXPORT}\n"
        if reason != "minutes":
            asked = len(server.asked)
            again = cli(*words, flag, value)
            assert (again.returncode, again.stderr.splitlines()[-1]) == (3, last)
            assert len(server.asked) == asked
        finished = cli(*words)
        assert finished.returncode == 0, finished.stderr
    assert "run: " in finished.stderr


def test_a_spent_budget_loads_no_model(tmp_path: Path, bare_model: Path, cli: RunCli) -> None:
    # The bare model cannot be loaded: only a start without an engine comes to an end of its own.
    model = ChosenModel(check_model_folder(bare_model))
    chosen = load_settings(GenerateSettings, None, {"request_budget": 4})
    with RunStore(tmp_path / "run") as store:
        seeds = open_run(store, chosen, model.facts(), [seed_file()])
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        assert run(store, chosen, seeds, ScriptedEngine, display, Interrupt()).reason == "requests"
    done = cli("generate", "--run", tmp_path / "run", "--model", bare_model, "--request-budget", 4)
    assert done.returncode == 3, done.stderr
    assert "the budget of requests is spent" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "engine.log").exists()


@pytest.mark.parametrize("flag", ["--token-budget", "--request-budget", "--minutes"])
def test_a_budget_of_nothing_is_refused(tmp_path: Path, bare_model: Path, cli: RunCli, flag: str) -> None:
    done = cli("generate", "--run", tmp_path / "run", "--model", bare_model, flag, 0)
    assert done.returncode == 2
    assert done.stderr.startswith(f"selfinstruct: {flag} 0")
    assert len(done.stderr.splitlines()) == 1
