"""Tokens meet their candidates, and the report of runs that are done is whole Markdown."""

import sys
from pathlib import Path

import pytest

from selfinstruct_local.config import GenerateSettings
from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.store import Candidate
from selfinstruct_local.tasks import Instance, Task, Verdict
from tests.scripted_engine import ScriptedEngine

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")
pytest.importorskip("spacy")

from yield_arms import make_arms, run_arm
from yield_report import CompletionTokens, Cost, make_report, measure, published_cost, shown_tasks

MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}


def test_requests_after_acceptance_count_for_accepted_candidates_alone() -> None:
    costs = [
        CompletionTokens(0, "instructions", 0, 100),
        CompletionTokens(0, "classification", 1, 2),
        CompletionTokens(0, "instance", 1, 50),
        CompletionTokens(0, "instance", 2, 70),
        CompletionTokens(1, "instructions", 0, 90),
        CompletionTokens(1, "instance", 1, 60),
    ]
    after = ("classification", "instance")
    assert published_cost(costs, {(0, 1)}, after) == Cost(4, 100 + 2 + 50 + 90)
    assert published_cost(costs, set(), after) == Cost(2, 190)
    assert published_cost(costs, set(), ()) == Cost(6, 372)


def test_a_report_of_runs_that_are_done_stays_whole_markdown(tmp_path: Path) -> None:
    measured = []
    for arm in make_arms(tokens=400, accepted=5, baseline_accepted=0, cap=2000):
        if arm.name in {"self-instruct-2022", "alpaca"}:
            settings = GenerateSettings.model_validate({"num": 10**9, "patience": 10**9, **arm.flags})
            folder = tmp_path / arm.name
            assert run_arm(arm, folder, settings, MODEL, lambda: ScriptedEngine(in_flight=8), Interrupt())
            measured.append(measure(arm, folder, settings, lambda text: len(text.split())))
    published, ours = measured
    assert published.cost.tokens <= published.spent.tokens
    assert ours.cost == ours.spent
    assert ours.passed >= ours.pooled >= len(ours.accepted) >= ours.by_our_rules > 0
    assert 0 < ours.inside <= ours.cost.tokens
    report = make_report(measured, "`scripted`", None)
    widths = {line.count("|") for line in report.splitlines() if line.startswith("| `")}
    heads = {line.count("|") for line in report.splitlines() if line.startswith("| arm")}
    assert widths == heads


def test_shown_tasks_keep_to_their_lines_and_verdicts_are_counted() -> None:
    task = Task("Sort | these\n## by *size*", (Instance("a\n\n<b>", "1. x"),))
    shown = shown_tasks([Candidate(task, Verdict(keep=True))] * 2, {"1": "Throw away: odd", "2": "good"})
    assert "\n## " not in shown
    assert "Sort \\| these<br>\\#\\# by \\*size\\*" in shown
    assert "a<br><br>&lt;b\\>" in shown
    assert "2 of 2 tasks were read, 1 of them to throw away" in shown
