"""Records of equal instructions: instances of one task where they differ, duplicates where they do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import selfinstruct_local as si
from selfinstruct_local.filters.decide import NOT_NOVEL
from selfinstruct_local.filters.instances import Digests
from selfinstruct_local.task import Instance, Task
from tests.conftest import RunCli

SORT = "Sort the given words by their length."


def record(task_input: object, output: object, instruction: str = SORT, **more: object) -> dict[str, Any]:
    return {"instruction": instruction, "input": task_input, "output": output, **more}


# Records, and whether each is kept.
ROWS: list[tuple[dict[str, Any], bool]] = [
    (record("bb a", "a bb", tag=1), True),
    (record("ccc dd", "dd ccc", tag=2), True),
    (record("bb a", "a bb"), False),
    (record("bb a", "bb a", f" {SORT}\n"), True),
    (record("e", "e", "Sort the given words by their length!"), False),  # its instruction is another
    (record("ccc dd", "dd ccc", most_similar={}), False),
    (record("", "", "Sort the given words by their length."), False),
    (record(None, None), False),
    ({"instruction": SORT, "instances": [{"input": "bb a", "output": "a bb"}, {"input": "g", "output": "g"}]}, True),
    ({"instruction": SORT, "instances": [{"input": "g", "output": "g"}]}, False),
    ({"instruction": SORT, "raw_instances": "Example 1\nInput: k\nOutput: l\nExample 2\nInput: bb a\nOutput: x"}, True),
    (record("k", "l"), False),
    (record("bb a", "", "Name the three longest rivers of Africa."), True),
    (record("bb a", "Nile", "Name the three longest rivers of Africa."), True),
]  # fmt: skip


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("prefilter", ["exact", "minhash", "none"])
def test_a_file_keeps_the_instances_of_a_task_and_no_duplicate(prefilter: str, tmp_path: Path, cli: RunCli) -> None:
    source, out, rejects = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "rejects.jsonl"))
    source.write_bytes(b"\n".join(orjson.dumps(row) for row, _ in ROWS))
    flags = ("--rules", "none", "--prefilter", prefilter, *(() if prefilter == "minhash" else ("--verify", 40)))
    done = cli("filter", source, "--out", out, "--rejects", rejects, *flags, "--json")
    assert done.returncode == 0, done.stderr
    summary = orjson.loads(done.stdout)
    assert (summary["read"], summary["kept"], summary["instances"]) == (len(ROWS), 7, 5)
    assert read_lines(out) == [row for row, kept in ROWS if kept]
    assert {(each["rejected"]["rule"], each["rejected"]["neighbor_row"]) for each in read_lines(rejects)} == {
        (NOT_NOVEL, 1)
    }
    again = cli("filter", out, "--out", tmp_path / "again.jsonl", "--rules", "none", "--json")
    assert orjson.loads(again.stdout)["kept"] == 7


def test_what_must_be_differed_from_has_no_instances_and_rules_see_each_record(tmp_path: Path, cli: RunCli) -> None:
    source, known, out = (tmp_path / name for name in ("in.jsonl", "known.jsonl", "out.jsonl"))
    known.write_bytes(orjson.dumps(record("bb a", "a bb")))
    other = "Explain how the tides of the sea come about."
    rows = [
        record("q", "p"),
        record("", "", other),
        record("", "By the moon.", other),
        record("", "By the sun.", other),
    ]
    source.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    done = cli("filter", source, "--out", out, "--against", known, "--json")
    summary = orjson.loads(done.stdout)
    assert (summary["kept"], summary["instances"]) == (2, 1)
    assert summary["rejected"] == {NOT_NOVEL: 1, "empty_output": 1}
    assert read_lines(out) == rows[2:]


def test_a_notebook_decides_as_the_command_does(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_bytes(orjson.dumps([row for row, _ in ROWS]))
    tasks = si.load_tasks(source)
    kept, rejected = si.filter_tasks(tasks, rules="none")
    assert kept == [task for task, (_, stays) in zip(tasks, ROWS, strict=True) if stays]
    assert {verdict.rule for _, verdict in rejected} == {NOT_NOVEL}
    assert si.filter_tasks(tasks, against=tasks[:1], rules="none").kept == kept[-2:]


@pytest.mark.parametrize("digests", [Digests.of, Digests.stable])
def test_a_digest_tells_where_the_input_ends(digests: Callable[[Task], Digests]) -> None:
    one, other = (digests(Task("a", (Instance(*case),))) for case in (("b", "c"), ("bc", "")))
    assert one.instruction == other.instruction
    assert one.cases != other.cases
    assert digests(Task("a", (Instance("", ""),))).cases == ()
