"""Runs that start from what others generated: imported files and forks."""

import re
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate import create
from selfinstruct_local.generate.create import fork, import_tasks, open_run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.runs.store import RunStore
from selfinstruct_local.seeds import seed_file
from tests.conftest import RunCli
from tests.generate.test_run import MODEL, generate, pool, settings
from tests.scripted_engine import ScriptedEngine

# As the published Alpaca program writes them.
REGEN = [
    {
        "instruction": f"Name {count} old towns of the far north",
        "input": "",
        "output": f"{count} towns",
        "most_similar_instructions": {"Name a river": 0.4},
        "avg_similarity_score": 0.1,
    }
    for count in ("three", "seven", "nine")
]
# As the published Self-Instruct program writes them: no outputs yet.
MACHINE_GENERATED = [
    {
        "instruction": f"Compare two {what} by their age and price.",
        "most_similar": {},
        "avg_similarity_score": 0.1,
        "metadata": {"response": None},
        "instruction_metadata": {},
        "request_idx": 1,
    }
    for what in ("bridges", "cameras")
]


@pytest.fixture
def regen(tmp_path: Path) -> Path:
    path = tmp_path / "regen.json"
    path.write_bytes(orjson.dumps(REGEN))
    return path


@pytest.fixture
def machine_generated(tmp_path: Path) -> Path:
    path = tmp_path / "machine_generated_instructions.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, MACHINE_GENERATED)))
    return path


def test_a_run_goes_on_from_an_imported_regen_json(regen: Path, tmp_path: Path, cli: RunCli) -> None:
    run = tmp_path / "run"
    done = cli("runs", "import", regen, "--run", run)
    assert (done.returncode, done.stdout.strip()) == (0, f"3 tasks: {run}")
    assert f"{run}: not started" in cli("runs", "show", run).stdout
    assert generate(run, settings(num=20), ScriptedEngine()).reason == "done"
    records = orjson.loads(pool(run))
    assert records[:3] == [{name: each[name] for name in ("instruction", "input", "output")} for each in REGEN]
    assert len(records) >= 20
    with RunStore(run, read_only=True) as store:
        totals = store.totals()
        assert (totals.inherited, totals.accepted) == (3, len(records))
        shown = {name for task in store.accepted() if task.lineage for name in task.lineage.demonstrations}
        assert any(name.startswith("inherited-") for name in shown)
        assert [each.origin for each in store.inherited()][1] == {"file": str(regen), "row": 2}


def test_an_imported_task_is_not_generated_again(regen: Path, tmp_path: Path) -> None:
    generate(tmp_path / "first", settings(num=20), ScriptedEngine())
    taken = orjson.loads(pool(tmp_path / "first"))[0]
    regen.write_bytes(orjson.dumps([taken]))
    with RunStore(tmp_path / "run") as store:
        assert import_tasks(store, regen) == (1, 0)
    generate(tmp_path / "run", settings(num=20), ScriptedEngine())
    instructions = [record["instruction"] for record in orjson.loads(pool(tmp_path / "run"))]
    assert instructions.count(taken["instruction"]) == 1


def test_bare_instructions_need_a_profile_that_shows_no_outputs(machine_generated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunStore(run) as store:
        assert import_tasks(store, machine_generated) == (2, 2)
    with RunStore(run) as store, pytest.raises(UsageError, match="use --profile magpie or self-instruct-2022"):
        open_run(store, settings(), MODEL, [seed_file()])
    assert generate(run, settings(num=12, profile="self-instruct-2022"), ScriptedEngine()).reason == "done"
    assert not {each["instruction"] for each in MACHINE_GENERATED} & {
        record["instruction"] for record in orjson.loads(pool(run))
    }


def test_instances_of_one_task_are_imported_as_one(tmp_path: Path, cli: RunCli) -> None:
    path, run = tmp_path / "all_generated_instances.jsonl", tmp_path / "run"
    sort, name = "Sort the words by their length.", "Name an old town."
    rows = [
        {"instruction": sort, "input": "bb a", "output": "a bb"},
        {"instruction": name, "input": "", "output": ""},
        {"instruction": sort, "input": "bb a", "output": "a bb"},
        {"instruction": f"{sort} ", "input": "ccc dd", "output": "dd ccc", "is_classification": False},
        {"instruction": name, "input": "", "output": "Ur"},
        {"instruction": sort, "raw_instances": "Example 1\nInput: k\nOutput: l\nExample 2\nInput: bb a\nOutput: a bb"},
        {"instruction": "Tell a tale.", "raw_instances": "Nothing of use."},
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    done = cli("runs", "import", path, "--run", run)
    assert (done.returncode, done.stdout.strip()) == (0, f"3 tasks: {run}")
    with RunStore(run, read_only=True) as store:
        tasks = [each.task for each in store.inherited()]
        assert [each.origin["row"] for each in store.inherited()] == [1, 2, 7]
    assert [task.instruction for task in tasks] == [sort, name, "Tell a tale."]
    assert [list(map(tuple, task.instances)) for task in tasks] == [
        [("bb a", "a bb"), ("ccc dd", "dd ccc"), ("k", "l")],
        [("", "Ur")],
        [],
    ]
    assert tasks[0].is_classification is False


def test_a_run_is_not_imported_over(regen: Path, tmp_path: Path, cli: RunCli) -> None:
    run = tmp_path / "run"
    assert cli("runs", "import", regen, "--run", run).returncode == 0
    again = cli("runs", "import", regen, "--run", run)
    assert again.returncode == 2
    assert f"--run {run}: is already a run" in again.stderr


def test_a_run_under_a_setting_that_is_gone_is_refused_in_one_line(tmp_path: Path) -> None:
    run, old = tmp_path / "run", tmp_path / "old"
    with RunStore(run) as store:
        open_run(store, settings(), MODEL, [seed_file()])
        known = store.facts()
    with RunStore(old) as store:
        store.create({**known, "max_numbers": 0, "min_new_words": None}, [])  # of one that was off, nothing is lost
        with pytest.raises(UsageError) as refused:
            open_run(store, settings(), MODEL, [seed_file()])
    message = str(refused.value)
    assert message.startswith(f"--run {old}: ")
    assert "(max numbers: 0 in the run, no such setting now)" in message
    assert "--fork NEWRUN" in message


def test_a_fork_starts_from_the_old_pool_under_new_settings(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    generate(old, settings(num=15), ScriptedEngine())
    before = (old / "run.sqlite").read_bytes()
    for _ in range(2):  # the same command again goes on
        with RunStore(old, read_only=True) as source, RunStore(new) as store:
            assert fork(source, store) == len(orjson.loads(pool(old)))
        generate(new, settings(num=30, threshold=0.5, seed=9), ScriptedEngine())
    records = orjson.loads(pool(new))
    assert records[: len(orjson.loads(pool(old)))] == orjson.loads(pool(old))
    assert len(records) >= 30
    assert (old / "run.sqlite").read_bytes() == before
    with RunStore(new) as store:
        assert next(store.inherited()).origin == {"run": str(old.resolve()), "id": "gen-0-0"}
        other = tmp_path / "other"
        generate(other, settings(num=5), ScriptedEngine())
        with (
            RunStore(other, read_only=True) as source,
            pytest.raises(UsageError, match=rf"^--fork {new}: is already a run"),
        ):
            fork(source, store)


def test_a_fork_of_a_run_without_tasks_goes_on_too(tmp_path: Path) -> None:
    RunStore(tmp_path / "old").close()
    new = tmp_path / "new"
    for wanted in (5, 10):
        with RunStore(tmp_path / "old", read_only=True) as source, RunStore(new) as store:
            assert fork(source, store) == 0
        generate(new, settings(num=wanted), ScriptedEngine())
    assert len(orjson.loads(pool(new))) >= 10


def test_a_run_is_not_forked_onto_itself(regen: Path, tmp_path: Path, cli: RunCli) -> None:
    run = tmp_path / "run"
    assert cli("runs", "import", regen, "--run", run).returncode == 0
    with RunStore(run) as store, pytest.raises(UsageError, match=rf"^--fork {run}: .*source run"):
        fork(store, store)


def test_a_fork_of_bare_instructions_names_where_they_come_from(machine_generated: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    with RunStore(old) as store:
        import_tasks(store, machine_generated)
        with RunStore(tmp_path / "new") as new:
            fork(store, new)
            with pytest.raises(UsageError, match=rf"was imported from bare instructions \({old}\)"):
                open_run(new, settings(), MODEL, [seed_file()])


def test_a_run_keeps_its_window_when_more_are_in_flight(tmp_path: Path) -> None:
    """How many are in flight may change at each start, and the window that follows from it may not."""

    def start(**flags: object) -> int | None:
        chosen = load_settings(GenerateSettings, None, {"profile": "alpaca", **flags})
        with RunStore(tmp_path / "run") as store:
            open_run(store, chosen, MODEL, [seed_file()])
        return chosen.window

    assert start(in_flight=16) == start(in_flight=64) == start(in_flight=4, window=128) == 128
    with pytest.raises(UsageError, match="window: 128 in the run, 512 now"):
        start(in_flight=64, window=512)


def test_a_run_that_was_begun_with_a_useless_setting_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of versions that took such settings in silence have them among their facts."""
    chosen = load_settings(GenerateSettings, None, {"profile": "alpaca", "min_confidence": -1.0})
    with RunStore(tmp_path) as store:
        with pytest.raises(UsageError, match=r"--min-confidence -1\.0: profile 'alpaca' .*--profile "):
            open_run(store, chosen, MODEL, [seed_file()])
        with monkeypatch.context() as before:
            before.setattr(create, "check_used", lambda _: None)
            seeds = open_run(store, chosen, MODEL, [seed_file()])
        assert open_run(store, chosen, MODEL, [seed_file()]) == seeds


def test_runs_are_listed(tmp_path: Path, cli: RunCli) -> None:
    generate(tmp_path / "runs" / "a", settings(num=5), ScriptedEngine())
    generate(tmp_path / "runs" / "b" / "c", settings(num=8), ScriptedEngine())
    lines = cli("runs", "list", tmp_path / "runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b/c"]
    assert all(line.endswith("done") for line in lines)
    parsed = [orjson.loads(line) for line in cli("runs", "list", tmp_path / "runs", "--json").stdout.splitlines()]
    assert [each["totals"]["accepted"] >= count for each, count in zip(parsed, (5, 8), strict=True)] == [True, True]
    assert cli("runs", "show", tmp_path).returncode == 2


def test_a_run_that_cannot_be_read_is_listed_as_such(tmp_path: Path, cli: RunCli) -> None:
    generate(tmp_path / "b", settings(num=5), ScriptedEngine())
    for name, content in (("a", b"SQLite format 3\0" + b"\xff" * 5000), ("c", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.sqlite").write_bytes(content)
    listed = cli("runs", "list", tmp_path)
    damaged, whole, empty = listed.stdout.splitlines()
    assert listed.returncode == 0
    assert damaged.startswith("a  run.sqlite cannot be read (")
    assert whole.endswith("done")
    assert re.match(r"c  .*\(run\.sqlite is empty\)", empty)
    parsed = [orjson.loads(line) for line in cli("runs", "list", tmp_path, "--json").stdout.splitlines()]
    assert [sorted(each)[:1] for each in parsed] == [["error"], ["at_work"], ["error"]]
