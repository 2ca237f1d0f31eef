"""Completions far longer than any that was asked for: read in seconds, and a signal meanwhile ends the command."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.tasks import MAX_TASKS, TOO_MANY
from selfinstruct_local.generate.profiles.registry import make_profile
from selfinstruct_local.generate.run import EXPORT
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seeds import seed_file
from tests.generate.test_faults import command, count, finish, sound, start, wait_until
from tests.scripted_engine import answer
from tests.scripted_server import ScriptedServer

LENGTH = 10_000_000
ALPACA = ("--profile", "alpaca")
SECONDS = 5.0  # of CPU, for one job
WORDS = ("rivers", "bridges", "letters", "seasons", "markets")
PIECES: dict[str, Callable[[int], str]] = {
    "tasks": lambda n: f"\n### Task {n}\nInstruction: Name {n} {WORDS[n % 5]} of the land\nInput: none\nOutput: {n}\n",
    "marks": lambda n: f"### Task {n}\n",
    "instructions": lambda _: "Instruction: Say a word\n",
    "Chinese": lambda _: "\n\u6307\u4ee4\uff1a\u5199\u8bd7\n\u8f93\u51fa\uff1a\u597d",
    "items": lambda n: f"\n{n}. Name {n} {WORDS[n % 5]}",
    "cases": lambda n: f"\nExample {n}\nInput: {n}\nOutput: one",
    "sentences": lambda n: f"The {n} of the land. ",
    "outputs": lambda n: f"Output {n % 3}: abc\n",
    "labels": lambda n: f"Class label: {n % 3}\nof {n}\n",
    "objects": lambda n: f'{"[,"[n > 4]}{{"instruction": "Say {n}", "input": "{n}", "output": "b"}}',
    "published": lambda n: f"\n###\n{n}. Instruction: Go\n{n}. Input:\nb\n{n}. Output:\nc\n",
    "hashes": lambda _: "###",
    "braces": lambda _: '{"a": ',
    "spaces": lambda _: " " * 100,
    "lines": lambda _: "\n" * 100,
    "field of spaces": lambda n: "Output" if n == 4 else " " * 100,
}


def long_text(kind: str, length: int = LENGTH) -> str:
    pieces, size, number = [], 0, 4
    while size < length:
        pieces.append(PIECES[kind](number))
        size += len(pieces[-1])
        number += 1
    return "".join(pieces)


def drafts_of(
    settings: GenerateSettings, stage: str, text: str, reason: FinishReason
) -> tuple[list[ParsedTask], float]:
    """What a job makes of it as the first completion of a stage, and the seconds of CPU that it worked."""
    job = Job(0, 0, list(read_tasks(seed_file())), [])
    steps = make_profile(settings).steps(job)
    answers = None
    told = False
    spent = 0.0
    while True:
        began = time.process_time()
        try:
            requests = steps.send(answers)  # type: ignore[arg-type]
        except StopIteration as finished:
            assert told
            return finished.value, spent + time.process_time() - began
        spent += time.process_time() - began
        answers = [answer(request) for request in requests]
        if requests[0].key.stage == stage:
            answers[0] = Completion(requests[0].key, text, reason, 1, 1)
            told = True


@pytest.mark.parametrize("kind", PIECES)
def test_every_profile_reads_or_refuses_ten_megabytes_in_time(kind: str) -> None:
    text = long_text(kind)
    for profile, structured, stage, cases, reason in (
        ("alpaca", False, "tasks", 1, FinishReason.STOP),
        ("alpaca", True, "tasks", 1, FinishReason.LENGTH),
        ("self-instruct", False, "question", 1, FinishReason.STOP),
        ("self-instruct", False, "input", 1, FinishReason.STOP),
        ("self-instruct", False, "answer", 1, FinishReason.STOP),
        ("alpaca-2023", False, "tasks", 1, FinishReason.STOP),
        ("self-instruct-2022", False, "instructions", 1, FinishReason.STOP),
        ("self-instruct-2022", False, "instance", 5, FinishReason.STOP),
        ("magpie", False, "question", 1, FinishReason.STOP),
    ):
        chosen = {"profile": profile, "structured": structured, "instances_per_task": cases}
        if profile == "magpie":
            chosen["prompt_format"] = "chat"
        if profile == "self-instruct":
            chosen["classification_share"] = float(stage == "input")
        settings = load_settings(GenerateSettings, None, chosen)
        drafts, spent = drafts_of(settings, stage, text, reason)
        assert spent < SECONDS, (profile, structured, stage)
        assert drafts, (profile, structured, stage)
        assert len(drafts) <= MAX_TASKS + 1
        assert [draft.rule for draft in drafts].count(TOO_MANY) <= 1


@pytest.mark.parametrize(
    ("profile", "structured", "stage", "kind"),
    [
        ("alpaca", False, "tasks", "tasks"),
        ("alpaca", True, "tasks", "objects"),
        ("alpaca-2023", False, "tasks", "published"),
        ("self-instruct-2022", False, "instructions", "items"),
    ],
)
@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH])
def test_what_is_beyond_the_bound_is_one_counted_draft(
    profile: str, *, structured: bool, stage: str, kind: str, reason: FinishReason
) -> None:
    settings = load_settings(GenerateSettings, None, {"profile": profile, "structured": structured})
    few, _ = drafts_of(settings, stage, long_text(kind, 2_000), FinishReason.STOP)
    many, _ = drafts_of(settings, stage, long_text(kind, 400_000), reason)
    assert len(many) == MAX_TASKS + 1
    assert [draft.rule == TOO_MANY for draft in many] == [False] * MAX_TASKS + [True]
    assert TOO_MANY not in {draft.rule for draft in few}
    if profile != "self-instruct-2022" or reason is FinishReason.STOP:  # which drops a list that was cut short
        assert [draft.rule for draft in many[:5]] == [draft.rule for draft in few[:5]]


def test_a_signal_while_long_completions_are_read_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    text = long_text("tasks")

    def writes(request: Request) -> Completion:
        short = answer(request)
        if (request.sampling.seed or 0) % 4:
            return short
        return Completion(request.key, text, FinishReason.STOP, 1, 1)

    with ScriptedServer() as server:
        server.writes = writes
        straight = finish(command(server, tmp_path / "straight", *ALPACA))
        assert straight.returncode == 0, straight.stderr
        assert TOO_MANY in straight.stderr
        run = tmp_path / "run"
        process = start(command(server, run, *ALPACA))
        wait_until(lambda: count(run, f"completions WHERE length(text) >= {LENGTH}") > 0)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=60)
        waited = time.monotonic() - began
        assert process.returncode == 143, stderr
        assert "Traceback" not in stderr
        assert waited < 10  # on a machine that is shared; the CPU time of a job is bounded above
        assert sound(run)
        asked, stored = len(server.asked), count(run, "completions")
        assert finish(command(server, run, *ALPACA)).returncode == 0
        assert (run / EXPORT).read_bytes() == (tmp_path / "straight" / EXPORT).read_bytes()
        assert count(run, "completions") <= stored + len(server.asked) - asked  # what was stored was not asked again
