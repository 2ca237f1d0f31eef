"""Files of tasks and settings that are torn, twisted or meant to harm: each fault is named with its place, or is data.

The numbers are those of docs/faults.md.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.json_faults import MAX_DEPTH, record_fault
from selfinstruct_local.io.reader import BadRecordError, read_rows, read_tasks
from selfinstruct_local.io.writer import open_writer
from tests.conftest import RunCli

GOOD = b'{"instruction": "Name a river.", "input": "", "output": "Nile"}'
OTHER = b'{"instruction": "Explain why the sky looks blue", "input": "", "output": "It scatters."}'


def nested(depth: int) -> bytes:
    return b'{"instruction": "Hi", "extra": ' + b"[" * depth + b"]" * depth + b"}"


# What stands in the second line of three, and what is said of it.
BROKEN = {
    "torn": (b'{"instruction": "Name a ri', "not JSON"),
    "corrupt": (GOOD.replace(b'"input"', b'"inp\x00ut"'), "not JSON"),
    "latin-1": (b'{"instruction": "caf\xe9"}', "not UTF-8 at byte 20"),
    "torn character": (b'{"instruction": "caf\xc3"}', "not UTF-8 at byte 20"),
    "half a pair": (b'{"instruction": "a", "output": "\\ud800"}', "field 'output': has a lone surrogate"),
    "half a pair in a list": (b'{"instruction": "a", "tags": ["x", "\\udfff"]}', "field 'tags': has a lone surrogate"),
    "not a number": (b'{"instruction": "a", "score": NaN}', "field 'score': NaN is not a JSON number"),
    "infinity": (b'{"instruction": "a", "score": -Infinity}', "field 'score': -Infinity is not a JSON number"),
    "1e999": (b'{"instruction": "a", "score": 1e999}', "field 'score': the number 1e999 is too large"),
    "a long number": (
        b'{"instruction": "a", "n": ' + b"7" * 5000 + b"}",
        "field 'n': the number 77777777777777777777...",
    ),
    "twice": (b'{"instruction": "a", "output": "x", "output": "y"}', "field 'output': duplicate key"),
    "twice, spelt otherwise": (b'{"instruction": "a", "\\u0069nstruction" :"b"}', "field 'instruction': duplicate key"),
    "twice, a colon hidden": (b'{"instruction": "a\\u003a", "k": 1, "k": 1}', "field 'k': duplicate key"),
    "twice, further in": (
        b'{"instruction": "a", "instances": [{"input": "", "input": ""}]}',
        "field 'input': duplicate key",
    ),
    "wrong type": (b'{"instruction": "a", "output": ["x"]}', "field 'output'"),
    "wrong type, an instance": (b'{"instruction": "a", "instances": [{"output": 7}]}', "field 'instances.0.output'"),
    "no object": (b"[1, 2]", "found a list"),
    "deep": (nested(MAX_DEPTH), f"nested deeper than {MAX_DEPTH} levels"),
    "deeper than Python goes": (nested(1020), f"nested deeper than {MAX_DEPTH} levels"),
    "deepest": (nested(100_000), "not JSON"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_line_is_named_or_counted(fault: str, tmp_path: Path) -> None:
    """Faults 4, 5, 6, 7, 9 and 10, in the middle of a file and at its end."""
    line, said = BROKEN[fault]
    path = tmp_path / "t.jsonl"
    for before, after in ((GOOD + b"\n", b"\n" + OTHER + b"\n"), (GOOD + b"\n" + OTHER + b"\n", b"")):
        path.write_bytes(before + line + after)
        number = before.count(b"\n") + 1
        with pytest.raises(BadRecordError) as caught:
            read_tasks(path)
        assert str(caught.value).startswith(f"{path}:{number}: ")
        assert said in str(caught.value)
        skipped: list[str] = []
        assert [row.task.output for row in read_rows(path, skipped=skipped)] == ["Nile", "It scatters."]
        assert [message.startswith(f"{path}:{number}: ") and said in message for message in skipped] == [True]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (b"[" + GOOD + b",\n" + b'{"instruction": "caf\xe9"}]', ":2: not UTF-8 at byte 20"),
        (b"\xef\xbb\xbf[" + GOOD + b",\n" + GOOD[:-9], ":2: not JSON"),
        (b"[" + GOOD + b',\n{"instruction": "a", "k" : 1, "k" : 2}]', ": record 2: field 'k': duplicate key"),
        (b"[" + GOOD + b',\n{"instruction": "a", "k": [NaN]}]', ": field 'k': NaN is not a JSON number"),
        (b"[" + GOOD + b"," + nested(300) + b"," + GOOD + b"]", f": record 2: nested deeper than {MAX_DEPTH}"),
        (b"[" + GOOD + b"," + nested(1015) + b"," + GOOD + b"]", f": record 2: nested deeper than {MAX_DEPTH}"),
    ],
)
def test_a_broken_array_is_named(array: bytes, said: str, tmp_path: Path) -> None:
    """Faults 4, 5, 6, 9 and 10 in an array."""
    path = tmp_path / "t.json"
    path.write_bytes(array)
    with pytest.raises(BadRecordError) as caught:
        read_tasks(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    if ": record 2: " in said:
        skipped: list[str] = []
        rows = list(read_rows(path, skipped=skipped))
        assert {row.number for row in rows} == {1, 3} & {*range(1, array.count(b"Nile") + 2)}
        assert len(skipped) == 1


class Pairs(list[Any]):
    """An object as its keys and values, which may come twice."""


KEYS = st.sampled_from(["a", "b", 'q"', "c:", "\\", "", "é", "\u2028"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(st.sampled_from('ab:"\\ ,{}[]\n\t中é')),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(KEYS, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(value: Any, style: random.Random) -> str:
    """JSON of a value, its white space and escapes as `style` has them."""
    space = style.choice(["", " ", "\t", "\n "])
    if isinstance(value, Pairs):
        fields = [
            f"{written(key, style)}{style.choice(['', space])}:{space}{written(each, style)}" for key, each in value
        ]
        return "{" + space + f",{space}".join(fields) + "}"
    if isinstance(value, list):
        return "[" + f"{space},".join(written(each, style) for each in value) + "]"
    text = json.dumps(value, ensure_ascii=style.random() < 0.5)
    if isinstance(value, str) and style.random() < 0.2:
        text = '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
    return text


def repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        return len(set(keys)) < len(keys) or any(repeats(each) for _, each in value)
    return isinstance(value, list) and any(map(repeats, value))


@given(st.lists(st.tuples(KEYS, VALUES), max_size=5).map(Pairs), st.randoms(use_true_random=False))
def test_a_key_that_stands_twice_is_always_found_and_no_other(value: Pairs, style: random.Random) -> None:
    """Fault 9: the count of colons that spares the second reading lets none through."""
    raw = written(value, style).encode()
    assert (record_fault(raw, orjson.loads(raw)) is not None) == repeats(value)


def test_the_command_stops_or_counts_what_is_broken(tmp_path: Path, cli: RunCli) -> None:
    """Faults 4 and 5 on the command line: exit 2 with the place, or exit 3 with the count."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join([GOOD, BROKEN["latin-1"][0], OTHER, BROKEN["torn"][0]]))
    done = cli("filter", source, "--out", out, "--rules", "none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{source}:2: not UTF-8 at byte 20" in done.stderr
    assert not out.exists()
    done = cli("filter", source, "--out", out, "--rules", "none", "--skip-bad-lines")
    assert done.returncode == 3
    assert f"{source}: 2 " in done.stderr
    assert f"first: {source}:2: not UTF-8" in done.stderr
    assert len(out.read_bytes().splitlines()) == 2


def test_lines_end_at_line_feeds_alone(tmp_path: Path, cli: RunCli) -> None:
    """Faults 8 and 11: separators inside texts go through a filter as they came; BOM and CRLF are taken."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    text = "Explain\u2028these\u0085four\u000bbroken\u2029words"
    record = json.dumps({"instruction": text, "input": "", "output": "ok"}, ensure_ascii=False)
    source.write_bytes(b"\xef\xbb\xbf" + record.encode() + b"\r\n\r\n" + GOOD + b"\r\n")
    assert cli("filter", source, "--out", out, "--rules", "none").returncode == 0
    assert [row.task.instruction for row in read_rows(out)] == [text, "Name a river."]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n \r\n", b"[]", b" [ ] \n"])
def test_an_empty_file_is_an_error(data: bytes, tmp_path: Path, cli: RunCli) -> None:
    """Fault 11."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(data)
    done = cli("filter", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"{source}: has no task" in done.stderr


def test_a_flipped_byte_of_a_parquet_file_is_said(tmp_path: Path) -> None:
    """Faults 5 and 6 in a table: whatever byte is flipped, the tasks are read or the file is named."""
    path = tmp_path / "t.parquet"
    with open_writer(path) as writer:
        for number in range(200):
            writer.write({"instruction": f"Name {number} rivers", "input": "", "output": "é" * (number % 9)})
    whole = path.read_bytes()
    stream = random.Random(5)
    said = []
    for place in [*range(4), *(stream.randrange(len(whole)) for _ in range(150)), len(whole) - 6]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        try:
            read_tasks(path)
        except UsageError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all(each.startswith(str(path)) for each in said)


def test_a_name_that_is_no_text_is_refused_before_any_work(tmp_path: Path) -> None:
    """Fault 6 in a name: bytes that no record and no JSON could hold."""
    twisted, plain = os.fsencode(tmp_path) + b"/in\xff.jsonl", tmp_path / "in.jsonl"
    for path in (twisted, plain):
        Path(os.fsdecode(path)).write_bytes(GOOD)
    for source, out in ((twisted, os.fsencode(tmp_path / "out")), (os.fsencode(plain), twisted)):
        command = [os.fsencode(sys.executable), b"-m", b"selfinstruct_local", b"filter", source, b"--out", out]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "in\\udcff.jsonl: the name is not UTF-8; rename it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_a_format_has_no_place_for_is_named(tmp_path: Path, cli: RunCli) -> None:
    """Fault 9 on the way out: bytes in JSON, two types in a column."""
    import pyarrow as pa
    from pyarrow import parquet

    picture = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"instruction": ["Name a river"], "picture": [b"\xff"]}), picture)
    done = cli("filter", picture, "--rules", "none", "--out", tmp_path / "out.jsonl")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "field 'picture': JSON cannot represent" in done.stderr
    mixed = tmp_path / "in.jsonl"
    mixed.write_text('{"instruction": "Name a river", "k": 1}\n{"instruction": "Draw the sea", "k": "x"}\n')
    done = cli("filter", mixed, "--rules", "none", "--out", tmp_path / "out.parquet")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "Parquet cannot represent a record" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "in.parquet"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num: !!python/object/apply:os.system ['touch PLACE']", "could not determine a constructor"),
        ("num: !!python/object/new:os.system ['touch PLACE']", "could not determine a constructor"),
        ("? !!python/name:os.system\n: 1", "could not determine a constructor"),
        ("num: 5\nseed: 1\nnum: 7", "duplicate key 'num'"),
        ("engine:\n  dtype: auto\n  dtype: float32", "duplicate key 'dtype'"),
        ("engine: {1: 2}", "engine.1: keys should be strings"),
        ("__class__: x", "__class__: no such setting"),
        ("threshold: .nan", "threshold: "),
        ("minutes: .inf", "minutes: input should be a finite number"),
        ("seed: " + "9" * 30, "seed: "),
        ("seed: " + "9" * 5000, "not plain YAML"),
        ("num: 2001-99-99", "not plain YAML (month must be"),
        ("[" * 5000, "not plain YAML"),
        ("- " * 5000, "not plain YAML"),
        ("a: &a [*a]", "a: no such setting"),
    ],
)
def test_hostile_yaml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Faults 9, 10 and 38."""
    config = tmp_path / "c.yaml"
    config.write_text(text.replace("PLACE", str(tmp_path / "ran")))
    with pytest.raises(UsageError) as caught:
        load_settings(GenerateSettings, config, {})
    assert str(caught.value).startswith(f"--config {config}: ")
    assert said in str(caught.value)
    assert not (tmp_path / "ran").exists()
