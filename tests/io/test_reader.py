import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import BadRecordError, UnreadFieldWarning, alpaca_records, read_rows, read_tasks
from selfinstruct_local.io.writer import ROW_GROUP, open_writer
from selfinstruct_local.task import Instance, Task

GOOD = b'{"instruction": "Name a river.", "input": "", "output": "Nile"}'


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        GOOD + b"\n" + GOOD + b"\n",
        GOOD + b"\r\n" + GOOD + b"\r\n",
        b"\xef\xbb\xbf" + GOOD + b"\n\n" + GOOD,
        b"[" + GOOD + b"," + GOOD + b"]",
        b"\xef\xbb\xbf\n [" + GOOD + b",\n" + GOOD + b"]\n",
    ],
    ids=["lines", "crlf", "bom and blank line", "array", "array with bom"],
)
def test_reads_lines_and_arrays(tmp_path: Path, data: bytes) -> None:
    assert read_tasks(write(tmp_path / "t", data)) == [Task.single("Name a river.", "", "Nile")] * 2


def test_reads_the_seed_format(tmp_path: Path) -> None:
    line = (
        b'{"id": "s1", "instruction": "Pick a label.", "is_classification": true, '
        b'"instances": [{"input": "a", "output": "x"}, {"input": "b", "output": "y"}]}'
    )
    (task,) = read_tasks(write(tmp_path / "t", line))
    assert task == Task("Pick a label.", (Instance("a", "x"), Instance("b", "y")), True, "s1")


def record(**fields: object) -> dict[str, Any]:
    return {"instruction": "Name a river.", **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None, "output": "Nile"},
        {"input": None, "output": "Nile", "id": None, "is_classification": None, "messages": None},
        {"instances": None, "output": "Nile"},
        {"instances": [{"input": None, "output": "Nile"}], "input": None, "output": None, "id": None},
        {"output": None, "context": None, "response": "Nile"},
        {"response": "Nile", "category": "open_qa"},
        {"input": "", "output": None, "response": "Nile"},
        {"output": "Nile", "response": "Nile\n"},
        {"raw_instances": " Output: Nile", "instances": None},
    ],
)
def test_a_null_is_a_missing_field(fields: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", json.dumps(record(**fields)).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreadFieldWarning)
        (row,) = read_rows(path)
    assert row.task == Task.single("Name a river.", "", "Nile")
    assert row.record == record(**fields)
    with open_writer(tmp_path / "t.parquet") as writer:
        writer.write(row.record)
        writer.write({"instruction": "Hi"})
    assert read_tasks(tmp_path / "t.parquet") == [row.task, Task.single("Hi")]


def test_a_null_output_is_an_empty_one_and_a_null_instruction_is_refused(tmp_path: Path) -> None:
    assert read_tasks(write(tmp_path / "t", b'{"instruction": "Hi", "output": null}')) == [Task.single("Hi")]
    with pytest.raises(BadRecordError, match="field 'instruction'"):
        read_tasks(write(tmp_path / "t", b'{"instruction": null, "output": "x"}'))


@pytest.mark.parametrize(
    ("fields", "case"),
    [
        ({"context": "At sea.", "response": "Salt"}, ("At sea.", "Salt")),
        ({"input": "At sea.", "context": "no", "response": "Salt"}, ("At sea.", "Salt")),
        ({"context": ["At", "sea"], "input": "At sea.", "response": "Salt"}, ("At sea.", "Salt")),
    ],
)
def test_reads_the_fields_of_dolly(fields: dict[str, Any], case: tuple[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", json.dumps(record(**fields)).encode())
    assert read_tasks(path) == [Task.single("Name a river.", *case)]


@pytest.mark.parametrize(
    ("fields", "unread"),
    [
        ({"output": "Salt", "response": "Sugar"}, "response"),
        ({"output": "", "response": "Sugar"}, "response"),
        ({"context": ["At", "sea"], "response": "Sugar"}, "response"),
        ({"response": ["Sugar"]}, "response"),
        ({"answer": "Sugar", "input": "At sea."}, "answer"),
        ({"answers": {"text": ["Sugar"]}}, "answers"),
        ({"output": None, "completion": "Sugar"}, "completion"),
    ],
)
def test_a_field_that_may_be_the_output_is_told_of(fields: dict[str, Any], unread: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", b"\n".join([json.dumps(record(**fields)).encode()] * 3 + [GOOD]))
    with pytest.warns(UnreadFieldWarning) as told:
        (task, *_) = read_tasks(path)
    assert [str(each.message).startswith(f"{path}: the field '{unread}' of 3 record") for each in told] == [True]
    assert task.output in {"", "Salt"}


def metadata(finish_reason: str) -> dict[str, Any]:
    return {"response": {"choices": [{"text": "", "finish_reason": finish_reason}]}}


@pytest.mark.parametrize(
    ("fields", "cases"),
    [
        ({"raw_instances": "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d"}, [("a", "b"), ("c", "d")]),
        (
            {"raw_instances": "Example 1\nOutput: b\nExample 2\nOutput: d", "instance_metadata": metadata("length")},
            [("", "b")],
        ),
        ({"raw_instances": "\nClass label: Good\nI like it.\nClass label: Bad\nI hate it."},
         [("I like it.", "Good"), ("I hate it.", "Bad")]),
        ({"raw_instances": "A label\nClass label: Good\nI like it.", "is_classification": " Yes"},
         [("I like it.", "Good")]),
        ({"raw_instances": "Output: Class label: Good", "is_classification": "No"}, [("", "Class label: Good")]),
        ({"raw_instances": "".join(f"Example {n}\nOutput: {n}{n}\n" for n in range(9))},
         [("", f"{n}{n}") for n in range(5)]),
        ({"raw_instances": "Nothing of use.", "instance_metadata": {"response": None}}, []),
        ({"raw_instances": "", "instance_metadata": None}, []),
        ({"raw_instances": "Output: b", "instances": [{"output": "mine"}]}, [("", "mine")]),
    ],
)  # fmt: skip
def test_reads_the_completions_that_self_instruct_keeps(
    fields: dict[str, Any], cases: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = write(tmp_path / "machine_generated_instances.jsonl", json.dumps(record(**fields)).encode())
    (task,) = read_tasks(path)
    assert list(task.instances) == cases


def test_keeps_fields_it_does_not_know(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path / "t", b'{"instruction": "Hi", "tags": [1]}'))
    assert row.record["tags"] == [1]


def test_line_separators_inside_text_are_text(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    data = f'{{"instruction": "{text}"}}\n'.encode()
    assert read_tasks(write(tmp_path / "t", data))[0].instruction == text


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"instruction": "cut of', "not JSON"),
        (b'{"instruction": "caf\xe9"}', "not UTF-8 at byte 20"),
        (b'{"instruction": "\\ud800"}', "field 'instruction': has a lone surrogate"),
        (b'{"instruction": NaN}', "field 'instruction': NaN is not a JSON number"),
        (b'{"instruction": 7}', "field 'instruction'"),
        (b'{"input": "x"}', "field 'instruction'"),
        (b'{"instruction": "x", "instances": [{"input": 1}]}', "field 'instances.0.input'"),
        (b'"just text"', "found a string"),
        (b"null", "found null"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, wanted: str) -> None:
    path = write(tmp_path / "t.jsonl", GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(BadRecordError) as caught:
        read_tasks(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert wanted in str(caught.value)

    skipped: list[str] = []
    assert [row.number for row in read_rows(path, skipped=skipped)] == [1, 3]
    assert len(skipped) == 1


@pytest.mark.parametrize("data", [b"", b"\n\n", b"[]"])
def test_an_empty_file_is_said(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="has no task"):
        read_tasks(write(tmp_path / "t", data))


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_tasks(tmp_path / "none")
    with pytest.raises(UsageError, match="is a folder"):
        read_tasks(tmp_path)


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 3), min_size=1, max_size=20))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    tasks = [Task.single(*row) for row in rows]
    for name in ("tasks.jsonl", "tasks.json", "tasks.parquet"):
        path = tmp_path_factory.mktemp("round") / name
        with open_writer(path) as writer:
            for record in alpaca_records(tasks):
                writer.write(record)
        assert read_tasks(path) == tasks


# Beyond what a signed or unsigned integer of 64 bits holds, and doubles that look like one.
LARGE = [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**300 + 7, 1e20, -1.5e300]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_integers_of_any_size_come_out_as_they_came_in(kind: str, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"instruction": "Hi: \u2028é", "n": LARGE[2], "tags": [{"deep": [number]} for number in LARGE]},
        {"instruction": "Hi", "output": "18446744073709551616"},
        {"instruction": "Hi", "id": 10**40, "score": 1e20},
    ]
    path, again = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    texts = [json.dumps(record) for record in records]
    path.write_text("\n".join(texts) if kind == "jsonl" else f" [{' , '.join(texts)}\n] ", encoding="utf-8")
    rows = list(read_rows(path))
    assert [row.record for row in rows] == records
    assert [[type(each) for each in row.record.values()] for row in rows] == [
        [type(each) for each in record.values()] for record in records
    ]
    assert rows[2].task.id == str(10**40)
    with open_writer(again) as writer:
        for row in rows:
            writer.write(row.record)
    text = again.read_text(encoding="utf-8")
    assert (json.loads(text) if kind == "json" else [*map(json.loads, text.split("\n")[:-1])]) == records


def test_an_integer_too_large_for_a_table_is_named_by_its_field(tmp_path: Path) -> None:
    def write_both(first: int) -> None:
        with open_writer(tmp_path / "t.parquet") as writer:
            writer.write({"instruction": "Hi", "n": first})
            writer.write({"instruction": "Hi", "n": 2**64})

    for first in (2**64, 1):
        with pytest.raises(UsageError, match=r"^field 'n': Parquet cannot represent a record .*; write JSON lines$"):
            write_both(first)
    assert not list(tmp_path.iterdir())


# A file that may be opened and not read, and names that no file can have.
@pytest.mark.parametrize(
    ("path", "why"),
    [
        (Path("/proc/self/mem"), "input/output error"),
        (Path("n" * 300 + ".jsonl"), "file name too long"),
        (Path("n" * 300 + ".parquet"), "file name too long"),
    ],
    ids=["content", "lines", "table"],
)
def test_what_the_system_refuses_to_read_is_said(path: Path, why: str) -> None:
    with pytest.raises(UsageError, match=rf"^{path}: cannot be read \({why}\); "):
        read_tasks(path)


def test_an_empty_output_is_whole(tmp_path: Path) -> None:
    for name, content in (("a.json", b"[]\n"), ("a.jsonl", b"")):
        with open_writer(tmp_path / name):
            pass
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("first", "later", "name"),
    [
        ({"a": 1}, {"a": 1, "score": 2}, "meta.score"),
        ([{"a": {"b": 1}}], [{"a": {"b": 1}}, {"a": {"c": 1}}], r"meta\.a\.c"),
    ],
    ids=["an object", "a list"],
)
def test_a_field_that_comes_up_after_the_columns_are_settled_is_named(
    first: object, later: object, name: str, tmp_path: Path
) -> None:
    def write_both() -> None:
        with open_writer(tmp_path / "t.parquet") as writer:
            for _ in range(ROW_GROUP):
                writer.write({"instruction": "Hi", "meta": first})
            writer.write({"instruction": "Hi", "meta": first})
            writer.write({"instruction": "Hi", "meta": later})

    with pytest.raises(UsageError, match=f"^field '{name}': .*Parquet"):
        write_both()
    assert not list(tmp_path.iterdir())


def test_parquet_keeps_its_columns_and_bad_files_are_said(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with open_writer(path) as writer:
        writer.write({"instruction": "Hi", "tags": ["a", "b"], "score": 0.5})
    (row,) = read_rows(path)
    assert row.record == {"instruction": "Hi", "tags": ["a", "b"], "score": 0.5}
    path.write_bytes(b"PAR1 no")
    with pytest.raises(BadRecordError, match="not a Parquet file"):
        read_tasks(path)
