"""What is asked: every format that `train` reads, without what cannot be compared, and the same draw every time."""

from pathlib import Path

import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.cases import SEVERAL_TURNS, read_held_out
from selfinstruct_local.generate.create import import_tasks
from selfinstruct_local.runs.store import RunStore
from tests.generate.test_run import generate
from tests.generate.test_run import settings as run_settings
from tests.scripted_engine import ScriptedEngine

PAIR = [{"role": "user", "content": "Add 1, 1."}, {"role": "assistant", "content": "2"}]


def write(path: Path, *records: object) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return path


def test_every_format_of_training_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mixed.jsonl",
        {"instruction": "Add.", "input": "2, 3", "output": "5"},
        {"instruction": "Is it good?", "input": "Bad.", "output": "No", "is_classification": True},
        {"instruction": "Say.", "instances": [{"output": "a"}, {"output": "b"}], "is_classification": False},
        {"messages": PAIR},
        {"prompt": "Once upon", "completion": " a time"},
    )
    held_out = read_held_out([file], 10, 0)
    assert [(case.instruction, case.sample.input, case.reference) for case in held_out.cases] == [
        ("Add.", "2, 3", "5"),
        ("Is it good?", "Bad.", "No"),
        ("Say.", "", "a"),
        ("Say.", "", "b"),
        ("Add 1, 1.", "", "2"),
        ("Once upon", "", " a time"),
    ]
    assert [case.is_classification for case in held_out.cases] == [None, True, False, False, None, None]
    assert held_out.cases[-1].sample.verbatim
    assert held_out.dropped == {}


def test_a_run_is_read_too(tmp_path: Path) -> None:
    assert generate(tmp_path / "run", run_settings(num=8), ScriptedEngine()).reason == "done"
    held_out = read_held_out([tmp_path / "run"], 100, 0)
    with RunStore(tmp_path / "run", read_only=True) as store:
        expected = [(task.instruction, task.output) for task in store.accepted()]
    assert [(case.instruction, case.reference) for case in held_out.cases] == expected


def test_conversations_of_several_turns_are_left_out_and_counted(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    file = write(tmp_path / "chats.jsonl", {"messages": PAIR * 2}, {"messages": PAIR}, {"messages": [system, *PAIR]})
    held_out = read_held_out([file], 10, 0)
    assert len(held_out.cases) == 1
    assert held_out.dropped == {SEVERAL_TURNS: 2}
    with pytest.raises(UsageError, match=r"no task with a reference \(1 a conversation of several turns\)"):
        read_held_out([write(tmp_path / "long.jsonl", {"messages": PAIR * 2})], 10, 0)


@pytest.mark.parametrize(
    "record", [{"instruction": "Add.", "output": " \n"}, {"instruction": "Add."}, {"instruction": "A", "instances": []}]
)
def test_a_missing_reference_is_named_by_its_line(tmp_path: Path, record: object) -> None:
    file = write(tmp_path / "held.jsonl", {"messages": PAIR}, record)
    with pytest.raises(UsageError, match=r"held.jsonl:2: has no reference"):
        read_held_out([file], 10, 0)


def test_the_draw_is_the_seeds(tmp_path: Path) -> None:
    file = write(tmp_path / "many.jsonl", *({"instruction": f"Say {n}.", "output": str(n)} for n in range(50)))
    first, again, other = (read_held_out([file], 10, seed) for seed in (1, 1, 2))
    assert first.cases == again.cases
    assert first.fingerprint == again.fingerprint != other.fingerprint
    numbers = [int(case.reference) for case in first.cases]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 10
    assert len(read_held_out([file], 50, 1).cases) == len(read_held_out([file], 51, 1).cases) == 50


def test_a_run_of_bare_instructions_has_nothing_to_compare_with(tmp_path: Path) -> None:
    file = write(tmp_path / "bare.jsonl", {"instruction": "Say why.", "instances": []})
    with RunStore(tmp_path / "run") as store:
        import_tasks(store, file)
        assert [task.instances for task in store.accepted()] == [()]
    with pytest.raises(UsageError, match="holds no task with a reference"):
        read_held_out([tmp_path / "run"], 10, 0)
