"""Parts of files: together they are the file, row for row and line for line."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct_local.cluster import sources
from selfinstruct_local.cluster.sources import InputFile, SourcePart, divide, read_items
from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import BadRecordError, read_rows

LINES = st.lists(
    st.sampled_from(
        [b"", b"   ", b'{"instruction": "Name a river.", "output": "Nile"}', b'{"instruction": "\xe2\x80\xa8"}']
    )
    | st.integers(0, 10**6).map(lambda number: orjson.dumps({"instruction": f"Add one to {number}."})),
    min_size=1,
    max_size=40,
)


@given(
    lines=LINES,
    ending=st.sampled_from([b"\n", b"\r\n"]),
    begin=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    ended=st.sampled_from(["at its end", "in the line"]),
    size=st.integers(1, 300),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_of_lines_are_the_file(
    lines: list[bytes], ending: bytes, begin: bytes, ended: str, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    text = ending.join([*lines, b'{"instruction": "The last one."}']) + (ending if ended == "at its end" else b"")
    path.write_bytes(begin + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PART_BYTES", size)
        parts = divide(InputFile.of(path))
    told = [item for part in parts for item in read_items(InputFile.of(path), part, None)]
    assert [(item.number, item.records[0]) for item in told] == [(row.number, row.record) for row in read_rows(path)]
    keys = [SourcePart(0, part).first_key for part in parts]
    assert keys == sorted(set(keys))


def test_parts_of_a_table_are_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.parquet"
    table = pa.table({"instruction": [f"Add one to {number}." for number in range(100)]})
    pq.write_table(table, path, row_group_size=7)
    monkeypatch.setattr(sources, "PART_ROWS", 20)
    parts = divide(InputFile.of(path))
    assert len(parts) == 5
    told = [
        (item.number, item.task.instruction) for part in parts for item in read_items(InputFile.of(path), part, None)
    ]
    assert told == [(number + 1, f"Add one to {number}.") for number in range(100)]


def test_what_the_system_refuses_to_read_is_said() -> None:
    source = InputFile.of(Path("n" * 300))
    with pytest.raises(UsageError, match=rf"^{source.path}: cannot be read \(file name too long\); "):
        divide(source)


def test_a_broken_record_is_named_by_its_line_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b'{"instruction": "Name a river."}\n' * 50 + b"{}\n")
    monkeypatch.setattr(sources, "PART_BYTES", 200)
    last = divide(InputFile.of(path))[-1]
    with pytest.raises(BadRecordError, match=r"tasks\.jsonl:51: "):
        list(read_items(InputFile.of(path), last, None))


@pytest.mark.parametrize("content", [b"", b'[{"instruction": "Name a river."}]'])
def test_what_cannot_be_divided_is_one_part(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_bytes(content)
    assert divide(InputFile.of(path)) == [None]
