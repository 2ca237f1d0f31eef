"""The loop against the scripted engine: reproducible, resumable, and honest about how it ended."""

from collections.abc import Generator, Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, Engine, Request
from selfinstruct_local.errors import COMMITTED_STANDS, EngineDeadError, UsageError
from selfinstruct_local.generate import display
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.generate.run import EXPORT, Outcome, run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.models import find_model
from selfinstruct_local.runs.store import RunStore, Totals
from selfinstruct_local.seeds import seed_file
from tests.scripted_engine import ScriptedEngine

MODEL = {"model_path": "/models/none", "model_fingerprint": "0" * 64, "adapter_fingerprint": None}


def settings(**flags: object) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"num": 40, "window": 8, "patience": 30, **flags})


def generate(
    folder: Path,
    chosen: GenerateSettings,
    engine: Engine,
    interrupt: Interrupt | None = None,
    model: Mapping[str, Any] = MODEL,
) -> Outcome:
    with RunStore(folder) as store:
        seeds = open_run(store, chosen, model, [seed_file()])
        display = RunDisplay(stderr_console(), store.totals(), chosen.num)
        return run(store, chosen, seeds, lambda: engine, display, interrupt or Interrupt())


def pool(folder: Path) -> bytes:
    return (folder / EXPORT).read_bytes()


@pytest.mark.parametrize("profile", ["alpaca", "self-instruct"])
def test_the_pool_does_not_depend_on_the_order_of_completions(tmp_path: Path, profile: str) -> None:
    pools = set()
    for order in range(10):
        folder = tmp_path / str(order)
        engine = ScriptedEngine(in_flight=1 + order, order=order)
        outcome = generate(folder, settings(profile=profile), engine)
        assert outcome.reason == "done"
        pools.add(pool(folder))
    assert len(pools) == 1
    records = orjson.loads(pools.pop())
    assert len(records) >= 40
    assert set(records[0]) == {"instruction", "input", "output"}
    assert all(record["output"] for record in records)


@pytest.mark.parametrize("profile", ["alpaca", "self-instruct"])
def test_a_run_that_dies_again_and_again_ends_with_the_same_pool(tmp_path: Path, profile: str) -> None:
    chosen = settings(profile=profile)
    generate(tmp_path / "straight", chosen, ScriptedEngine())
    deaths = []
    for attempt in range(200):
        engine = ScriptedEngine(in_flight=3, order=attempt, die_after=4)
        try:
            generate(tmp_path / "killed", chosen, engine)
            break
        except EngineDeadError as error:
            deaths.append(str(error))
    assert len(deaths) > 4
    assert set(deaths) == {f"the engine stopped: scripted; {COMMITTED_STANDS}"}
    assert pool(tmp_path / "killed") == pool(tmp_path / "straight")


def test_no_completion_is_asked_for_twice(tmp_path: Path) -> None:
    keys = []
    for attempt in range(200):
        engine = ScriptedEngine(in_flight=1, order=attempt, die_after=5)
        try:
            generate(tmp_path, settings(), engine)
            break
        except EngineDeadError:
            # With one in flight, the one that was never handed out is the only one lost.
            keys += [request.key for request in engine.asked[:-1]]
    assert len(keys) >= 20
    assert len(set(keys)) == len(keys)


def test_the_target_may_be_raised_and_the_run_goes_on(tmp_path: Path) -> None:
    generate(tmp_path / "a", settings(num=20), ScriptedEngine())
    generate(tmp_path / "a", settings(num=40), ScriptedEngine(in_flight=2))
    generate(tmp_path / "b", settings(num=40), ScriptedEngine())
    assert pool(tmp_path / "a") == pool(tmp_path / "b")


def test_a_finished_run_starts_no_engine(tmp_path: Path) -> None:
    chosen = settings(num=5)
    generate(tmp_path, chosen, ScriptedEngine())
    before = pool(tmp_path)

    class Unwanted(ScriptedEngine):
        def __init__(self) -> None:
            pytest.fail("the engine was started")

    with RunStore(tmp_path) as store:
        seeds = open_run(store, chosen, MODEL, [seed_file()])
        display = RunDisplay(stderr_console(), store.totals(), 5)
        assert run(store, chosen, seeds, Unwanted, display, Interrupt()).reason == "done"
    assert pool(tmp_path) == before


def test_other_deciding_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    generate(tmp_path, settings(num=5), ScriptedEngine())
    with RunStore(tmp_path) as store:
        with pytest.raises(UsageError, match=r"threshold: 0\.7 in the run, 0\.5 now"):
            open_run(store, settings(threshold=0.5), MODEL, [seed_file()])
        with pytest.raises(UsageError, match="model fingerprint"):
            open_run(store, settings(), {**MODEL, "model_fingerprint": "1" * 64}, [seed_file()])
        moved = {**MODEL, "model_path": "/elsewhere"}
        assert open_run(store, settings(num=9, patience=3), moved, [seed_file()])


def test_another_chat_template_is_refused_with_its_name(tmp_path: Path, bare_model: Path) -> None:
    run_folder = tmp_path / "run"
    template = bare_model / "chat_template.jinja"
    template.write_text("{{ messages }}")
    before = ChosenModel(find_model(str(bare_model)))
    generate(run_folder, settings(num=5), ScriptedEngine(), model=before.facts())
    template.write_text("{{ messages }} ")
    with RunStore(run_folder) as store:
        with pytest.raises(UsageError, match=r"model fingerprint: .+ \(chat_template.jinja differ\)"):
            open_run(store, settings(), ChosenModel(find_model(str(bare_model))).facts(), [seed_file()])
        template.write_text("{{ messages }}")
        assert open_run(store, settings(), ChosenModel(find_model(str(bare_model))).facts(), [seed_file()])


def test_other_seeds_are_refused_and_the_old_ones_kept(tmp_path: Path) -> None:
    generate(tmp_path, settings(num=5), ScriptedEngine())
    other = tmp_path / "seeds.jsonl"
    other.write_bytes(seed_file().read_bytes().splitlines(keepends=True)[0] * 9)
    with RunStore(tmp_path) as store, pytest.raises(UsageError, match="seeds fingerprint"):
        open_run(store, settings(), MODEL, [other])


def test_a_barren_run_gives_up(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    chosen = settings(num=100_000, patience=5)
    outcome = generate(tmp_path, chosen, engine)
    assert outcome.reason == "stalled"
    with RunStore(tmp_path, read_only=True) as store:
        assert len(set(store.pool_sizes()[-6:])) == 1
        assert store.totals().rejected["not_novel"] > 0


def test_a_signal_ends_the_run_after_the_commit_in_hand(tmp_path: Path) -> None:
    interrupt = Interrupt()

    class Signalling(ScriptedEngine):
        def generate(self, requests: Iterable[Request | None]) -> Generator[list[Completion], None, None]:
            for batch in super().generate(requests):
                yield batch
                if self.answered > 10:
                    interrupt.signum = 15

    outcome = generate(tmp_path, settings(), Signalling(), interrupt)
    assert outcome.reason == "interrupted"
    assert generate(tmp_path, settings(), ScriptedEngine()).reason == "done"


def test_the_ledger_says_why(tmp_path: Path) -> None:
    generate(tmp_path, settings(num=120, profile="alpaca"), ScriptedEngine())
    with RunStore(tmp_path, read_only=True) as store:
        rejected = store.totals().rejected
        assert {"empty_output", "truncated", "not_novel"} <= set(rejected)
        rows = store._db.execute("SELECT neighbor, score FROM candidates WHERE rule = 'not_novel'").fetchall()
        assert rows
        known = {task.id for task in [*store.seeds(), *store.accepted()]}
        assert all(neighbor in known and score > 0.7 for neighbor, score in rows)
        lineages = [task.lineage for task in store.accepted()]
        shown = {name for lineage in lineages if lineage for name in lineage.demonstrations}
        assert shown <= known
        assert any(name.startswith("gen-") for name in shown)


def test_every_accepted_task_has_the_neighbour_it_had_when_it_joined(tmp_path: Path) -> None:
    generate(tmp_path, settings(num=60), ScriptedEngine())
    scorer = RougeScorer(["rougeL"])
    with RunStore(tmp_path, read_only=True) as store:
        before = store.seeds()
        rows = store._db.execute(
            "SELECT instruction, neighbor, score FROM candidates WHERE rule = '' ORDER BY job, position"
        ).fetchall()
        for task, (instruction, neighbor, score) in zip(store.accepted(), rows, strict=True):
            scores = [scorer.score(old.instruction, instruction)["rougeL"].fmeasure for old in before]
            assert score == max(scores)
            assert neighbor == before[scores.index(score)].id
            before.append(task)


def test_aborted_completions_are_asked_for_again(tmp_path: Path) -> None:
    generate(tmp_path / "straight", settings(), ScriptedEngine())
    generate(tmp_path / "aborted", settings(), ScriptedEngine(abort_every=5))
    assert pool(tmp_path / "aborted") == pool(tmp_path / "straight")


def test_where_the_time_went_is_noted(tmp_path: Path) -> None:
    outcome = generate(tmp_path, settings(profile="self-instruct"), ScriptedEngine(latency=0.01))
    assert outcome.meter is not None
    with RunStore(tmp_path, read_only=True) as store:
        (session,) = store.sessions()
        totals = store.totals()
    assert session.outcome == "done"
    assert set(session.engine) == {"engine", "selfinstruct-local", "python"}
    assert session.measured is not None
    assert set(session.measured["stages"]) == {"question", "input", "answer", "reversed"}
    assert sum(stage["requests"] for stage in session.measured["stages"].values()) == totals.completions
    assert 0 <= session.measured["idle_share"] < 1
    assert session.measured["seconds"]["engine"] > 0.5 * session.measured["elapsed_seconds"]


def test_seeds_that_will_not_do_are_refused(tmp_path: Path) -> None:
    none = tmp_path / "none.jsonl"
    none.write_bytes(b"\n")
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"\n".join(seed_file().read_bytes().splitlines()[:2]))
    hollow = tmp_path / "hollow.jsonl"
    hollow.write_bytes(b'{"instruction": "Name a river", "instances": []}')
    with RunStore(tmp_path / "run") as store:
        with pytest.raises(UsageError, match=rf"^{none}: has no task"):
            open_run(store, settings(), MODEL, [none])
        with pytest.raises(UsageError, match="task 1 has an empty output"):
            open_run(store, settings(), MODEL, [hollow])
        assert store.facts() == {}
        assert open_run(store, settings(), MODEL, [few, few])[2].id == "seed-2"


def test_the_scoring_at_the_end_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path / "few", settings(), ScriptedEngine()).reason == "done"
    assert "scoring" not in capsys.readouterr().err
    monkeypatch.setattr(display, "MANY_TO_SCORE", 20)
    outcome = generate(tmp_path / "many", settings(), ScriptedEngine())
    assert f"scoring {outcome.accepted} tasks\n" in capsys.readouterr().err


def test_the_scoring_takes_the_place_of_the_table_on_a_terminal() -> None:
    screen = StringIO()
    totals = Totals(0, 0, 0, {}, 0, 0, 0, 0)
    with RunDisplay(Console(file=screen, force_terminal=True), totals, 5) as display:
        display.starting()
        display.started()
        display.scoring(7)
    assert "scoring 7 tasks" in screen.getvalue()
