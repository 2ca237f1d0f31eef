"""The dated profiles against an oracle of the published decisions, over recorded completions; and their requests."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.parsing.published import parse_published_blocks
from selfinstruct_local.generate.profiles.registry import PROFILES, check_used, make_profile
from selfinstruct_local.generate.run import run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.io.reader import alpaca_records, read_tasks
from selfinstruct_local.runs.export.write import export_run
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from tests.conftest import RunCli
from tests.generate import published_oracle
from tests.generate.test_run import MODEL, pool, settings
from tests.scripted_engine import ScriptedEngine

RECORDED = Path(__file__).parent / "recorded"
INSTRUCTION_RULES = {
    "too_short",
    "too_long",
    "asks_for_program",
    "starts_with_punctuation",
    "starts_with_non_ascii",
    "unsuitable_word",
}
REJECTIONS = {*INSTRUCTION_RULES, "not_novel", "malformed", "truncated", "prompt_too_long"}


def recorded(profile: str) -> list[dict[str, Any]]:
    path = RECORDED / f"{profile.replace('-', '_')}.json"
    found: list[dict[str, Any]] = orjson.loads(path.read_bytes())
    return found


class ReplayEngine(ScriptedEngine):
    """Answers with what is recorded for the request's key, cut at its stops; after that with nothing."""

    def __init__(self, profile: str, in_flight: int = 4, order: int = 0) -> None:
        super().__init__(in_flight, order)
        self._recorded = recorded(profile)
        self.replayed: set[RequestKey] = set()

    def _answer(self, request: Request) -> Completion:
        key = request.key
        if key.job >= len(self._recorded):
            return Completion(key, "", FinishReason.STOP, 1, 1)
        self.replayed.add(key)
        written = self._recorded[key.job]
        if key.stage != "tasks":
            written = written[key.stage]
        if key.stage in {"classification", "instance"}:
            written = written[str(key.branch)]
        if isinstance(written, str):
            written = {"text": written, "finish_reason": "stop"}
        text, stopped = published_oracle.cut_at_stops(written["text"], request.sampling.stop)
        reason = FinishReason.STOP if stopped else FinishReason(written["finish_reason"])
        return Completion(key, text, reason, 10, len(text.split()))


@pytest.fixture
def seeds_with_a_twin(tmp_path: Path) -> Path:
    """The seeds, the first of which stands twice."""
    path = tmp_path / "seeds.jsonl"
    data = seed_file().read_bytes()
    path.write_bytes(data + data.splitlines(keepends=True)[0])
    return path


def replay(profile: str, folder: Path, seeds: Path, engine: ReplayEngine) -> None:
    chosen = settings(profile=profile, num=1000, patience=6)
    with RunStore(folder) as store:
        tasks = open_run(store, chosen, MODEL, [seeds])
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        assert run(store, chosen, tasks, lambda: engine, display, Interrupt()).reason == "stalled"


@pytest.mark.parametrize(
    ("profile", "oracle"),
    [("alpaca-2023", published_oracle.alpaca), ("self-instruct-2022", published_oracle.self_instruct)],
)
def test_a_run_accepts_what_the_published_program_accepts(
    profile: str,
    oracle: Callable[[Sequence[str], list[dict[str, Any]]], published_oracle.Pool],
    tmp_path: Path,
    seeds_with_a_twin: Path,
) -> None:
    texts = [seed.instruction for seed in read_tasks(seeds_with_a_twin)]
    expected = oracle(texts, recorded(profile)).accepted
    assert len(expected) > 20
    pools = set()
    for order in range(3):
        folder = tmp_path / str(order)
        replay(profile, folder, seeds_with_a_twin, ReplayEngine(profile, 1 + 3 * order, order))
        pools.add(pool(folder))
    assert len(pools) == 1

    with RunStore(tmp_path / "0", read_only=True) as store:
        accepted = list(store.accepted())
        assert [(task.instruction, [tuple(case) for case in task.instances]) for task in accepted] == [
            (each.instruction, each.cases) for each in expected
        ]
        assert [task.id for task in accepted] == [f"gen-{job}-{position}" for job, position in map(_place, expected)]
        export_run(store, "regen", tmp_path / "regen.json")
        assert set(store.totals().rejected) == REJECTIONS
        _check_neighbors(store, expected)
    records = orjson.loads((tmp_path / "regen.json").read_bytes())
    wanted = [(each, case) for each in expected for case in each.cases]
    assert len(records) == len(wanted)
    for record, (each, (task_input, output)) in zip(records, wanted, strict=True):
        assert (record["instruction"], record["input"], record["output"]) == (each.instruction, task_input, output)
        # The order too, and the very floats.
        assert list(record["most_similar_instructions"].items()) == list(each.nearest.items())
        assert math.isclose(record["avg_similarity_score"], each.mean, rel_tol=0, abs_tol=1e-12)
    assert {len(record["most_similar_instructions"]) for record in records} == {9, 10}


def _place(each: published_oracle.Accepted) -> tuple[int, int]:
    return each.place


def _check_neighbors(store: RunStore, expected: Sequence[published_oracle.Accepted]) -> None:
    """The ledger's nearest neighbour is the first of the ten."""
    candidates = [each for job in store.ledger() for each in job.decided.candidates if each.verdict.keep]
    names = {task.id: task.instruction for task in [*store.seeds(), *store.accepted()]}
    for candidate, each in zip(candidates, expected, strict=True):
        assert candidate.neighbor_id is not None
        assert (names[candidate.neighbor_id], candidate.verdict.score) == next(iter(each.nearest.items()))


def test_each_recorded_completion_is_asked_for(tmp_path: Path, seeds_with_a_twin: Path) -> None:
    engine = ReplayEngine("self-instruct-2022")
    replay("self-instruct-2022", tmp_path / "run", seeds_with_a_twin, engine)
    keys = {
        RequestKey(job, stage, int(branch))
        for job, each in enumerate(recorded("self-instruct-2022"))
        for stage in ("classification", "instance")
        for branch in each[stage]
    }
    assert keys <= engine.replayed
    assert {key for key in engine.replayed if key.stage != "instructions"} == keys


def test_the_defects_are_kept(tmp_path: Path, seeds_with_a_twin: Path) -> None:
    replay("alpaca-2023", tmp_path / "alpaca", seeds_with_a_twin, ReplayEngine("alpaca-2023"))
    outputs = {record["instruction"]: record["output"] for record in orjson.loads(pool(tmp_path / "alpaca"))}
    assert outputs["When did the little theatre in the harbour burn down?"] == "It burned down in 20"
    assert not outputs["Explain why bread rises when yeast is added"]
    assert outputs["Write headings for a leaflet on bee keeping"] == "# Bees"
    assert outputs["Arrange five songs for a farewell party"] == "All of them"  # the input, as it stood last
    lost = ("Calculate the tip on a bill of ninety euros", "Predict how the weather shapes ice cream sales")
    assert not set(lost) & set(outputs)

    replay("self-instruct-2022", tmp_path / "self", seeds_with_a_twin, ReplayEngine("self-instruct-2022"))
    with RunStore(tmp_path / "self", read_only=True) as store:
        tasks = {task.instruction: task for task in store.accepted()}
        bare = {name for name, task in tasks.items() if not task.instances}
        exported = {record["instruction"] for record in alpaca_records(tasks.values())}
    assert "Tell anna about the nasa mission to mars." in tasks
    assert "Explain what happened at verdun in 19" in tasks
    assert {"Describe the smell of old books.", "Double the given number in words."} <= bare
    assert exported == set(tasks) - bare
    assert not bare & {record["instruction"] for record in orjson.loads(pool(tmp_path / "self"))}


def test_cases_are_asked_for_in_vain_only_of_near_copies(tmp_path: Path, seeds_with_a_twin: Path) -> None:
    replay("self-instruct-2022", tmp_path, seeds_with_a_twin, ReplayEngine("self-instruct-2022"))
    with RunStore(tmp_path, read_only=True) as store:
        rows = store._db.execute(
            "SELECT completions.stage, candidates.rule FROM completions JOIN candidates "
            "ON completions.job = candidates.job AND completions.branch = candidates.position "
            "WHERE completions.stage IN ('classification', 'instance')"
        ).fetchall()
        asked = store._db.execute("SELECT count(*) FROM completions WHERE stage != 'instructions'").fetchone()[0]
        accepted = store.totals().accepted
    assert len(rows) == asked
    assert rows.count(("instance", "")) == rows.count(("classification", "")) == accepted
    # In vain: all that was asked for and not accepted was a near copy.
    assert {rule for _, rule in rows} == {"", "not_novel"}


# The requests


def said(text: str, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(RequestKey(0, "tasks", 0), text, reason, 10, len(text.split()))


def first_request(profile: str, generated: Sequence[Task] = (), **flags: Any) -> tuple[Request, Any]:
    chosen = load_settings(GenerateSettings, None, {"profile": profile, **flags})
    steps = make_profile(chosen).steps(Job(0, 0, read_tasks(seed_file()), generated))
    (request,) = next(steps)
    return request, steps


MADE = [Task.single(f"Sing machine song number {number}", "", "la") for number in range(5)]


def test_the_alpaca_prompt_has_the_published_form() -> None:
    request, _ = first_request("alpaca-2023", MADE)
    assert "set of 20 tasks" in request.prompt
    assert request.prompt.endswith("\n###\n4. Instruction:")
    assert "machine song" not in request.prompt
    _, *blocks = request.prompt.split("###\n")
    assert len(blocks) == 4
    for number, block in enumerate(blocks[:3], start=1):
        lines = block.splitlines()
        assert lines[0].startswith(f"{number}. Instruction: ")
        assert lines[1] == f"{number}. Input:"
        assert f"{number}. Output:" in lines
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1.0, 1.0, 3072)
    assert (sampling.stop, sampling.forbid_end, sampling.presence_penalty) == (("\n20", "20."), True, 0.0)
    # What it shows, its own parser reads, once the numbers go on from where it counts.
    shown = parse_published_blocks(said(request.prompt.split("1. Instruction:", 1)[1].rpartition("###")[0]), 1)
    by_instruction = {seed.instruction: seed for seed in read_tasks(seed_file())}
    for draft in shown:
        seed = by_instruction[draft.task.instruction]
        assert (draft.rule, draft.task.input, draft.task.output) == ("", seed.input.strip(), seed.output.strip())
    assert first_request("alpaca-2023", tasks_per_prompt=7)[0].sampling.stop == ("\n10", "10.")


def test_the_self_instruct_prompts_have_the_published_form() -> None:
    request, steps = first_request("self-instruct-2022", MADE)
    lines = request.prompt.splitlines()[-9:]
    assert [line.partition(".")[0] for line in lines] == [str(number) for number in range(1, 10)]
    assert lines[-1] == "9."
    assert request.prompt.count("machine song") == 2
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.7, 0.5, 1024)
    assert (sampling.presence_penalty, sampling.stop) == (2.0, ("\n\n", "\n16", "16.", "16 ."))
    assert not sampling.forbid_end

    kinds = steps.send([said(" Sort the plants by height\n10. Name the mood of a mail")])
    for kind in kinds:
        assert kind.prompt.count("Is it classification? Yes") == 12
        assert kind.prompt.count("Is it classification? No") == 19
        assert kind.prompt.endswith("\nIs it classification?")
        assert (kind.sampling.temperature, kind.sampling.max_tokens) == (0.0, 3)
        assert kind.sampling.stop == ("\n", "Task")
    head = kinds[0].prompt.rpartition("Task: ")[0]
    assert kinds[1].prompt.startswith(head)  # the engine's prefix cache has it

    cases, labels = steps.send([said(" No"), said(" Yes")])
    assert cases.prompt.endswith("Task: Sort the plants by height\n")
    assert labels.prompt.endswith("Task: Name the mood of a mail\n")
    assert [each.prompt.count("\nTask: ") for each in (cases, labels)] == [12, 17]
    assert "\nClass label: " in labels.prompt
    assert "\nOutput: " in cases.prompt
    assert [each.sampling.max_tokens for each in (cases, labels)] == [350, 300]
    for each in (cases, labels):
        assert (each.sampling.temperature, each.sampling.presence_penalty) == (0.0, 1.5)
        assert each.sampling.stop == ("Example 6", "Task:")
        # LLaMA-7B's context holds it at three characters a token, which is more than enough for English.
        assert len(each.prompt) / 3 + each.sampling.max_tokens < 2048


def test_worked_examples_are_those_of_the_seeds_and_no_more() -> None:
    few = [Task.single(f"Do thing number {number}", "", "done") for number in range(8)]
    chosen = load_settings(GenerateSettings, None, {"profile": "self-instruct-2022"})
    steps = make_profile(chosen).steps(Job(0, 0, few, []))
    next(steps)
    (kind,) = steps.send([said(" Sort the plants by height")])
    assert (kind.prompt.count("classification? Yes"), kind.prompt.count("classification? No")) == (0, 8)
    (labels,) = steps.send([said(" Yes")])
    assert labels.prompt.count("Task: ") == 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"prompt_format": "chat"}, "--prompt-format chat: "),
        ({"structured": True}, "--structured on: "),
        ({"classification_share": 0.5}, "--classification-share 0.5: "),
    ],
)
@pytest.mark.parametrize("profile", ["alpaca-2023", "self-instruct-2022"])
def test_what_was_not_published_is_refused(profile: str, flags: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_used(load_settings(GenerateSettings, None, {"profile": profile, **flags}))
    assert str(refused.value).startswith(f"{named}profile '{profile}' ")
    assert "alpaca" in str(refused.value).partition("--profile ")[2].split()


# The command


def test_the_profiles_are_listed(cli: RunCli) -> None:
    done = cli("profiles")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    listed = [orjson.loads(line) for line in cli("profiles", "--json").stdout.splitlines()]
    assert [each["profile"] for each in listed] == list(PROFILES)
    for each in listed:
        assert each["summary"]
        assert each["prompts"]
        assert f"\n{each['profile']}\n" in f"\n{done.stdout}"
        assert bool(each["defects_kept"]) == each["profile"].endswith(("-2022", "-2023"))
    by_name = {each["profile"]: each for each in listed}
    assert by_name["alpaca-2023"]["sampling"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072}
    assert by_name["self-instruct-2022"]["demonstrations"] == {"shown": 8, "of_them_machine_made": 2}
