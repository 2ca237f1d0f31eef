from pathlib import Path

import orjson

from tests.conftest import RunCli


def record(instruction: str, output: str = "ok", **more: object) -> bytes:
    return orjson.dumps({"instruction": instruction, "input": "", "output": output, **more})


ROWS = [
    record("Name the three longest rivers of Africa", tag="first"),
    record("Draw the longest river of Africa now"),
    record("Name the three longest rivers of Asia"),
    record("Explain why the sky looks blue"),
]


def read_lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_filters_a_file(tmp_path: Path, cli: RunCli) -> None:
    source, out, rejects = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "rej.jsonl"
    source.write_bytes(b"\n".join(ROWS))
    done = cli("filter", source, "--out", out, "--rejects", rejects)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"kept 2 of 4: {out}"
    assert [row["instruction"] for row in read_lines(out)] == [
        "Name the three longest rivers of Africa",
        "Explain why the sky looks blue",
    ]
    assert read_lines(out)[0]["tag"] == "first"
    unsuitable, near = (row["rejected"] for row in read_lines(rejects))
    assert unsuitable == {"rule": "unsuitable_word", "detail": "asks for what text cannot give: 'Draw'", "row": 2}
    assert near == {
        "rule": "not_novel",
        "detail": "ROUGE-L 0.857",
        "row": 3,
        "neighbor_row": 1,
        "score": 6 / 7,
    }


def test_threshold_rules_array_and_json_summary(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    source.write_bytes(b"[" + b",".join(ROWS) + b"]")
    done = cli("filter", source, "--out", out, "--threshold", 0.9, "--rules", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout) == {"read": 4, "kept": 4, "rejected": {}, "skipped_lines": 0, "out": str(out)}
    assert len(orjson.loads(out.read_bytes())) == 4


def test_a_broken_line_stops_it_or_is_skipped(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(ROWS[0] + b"\n" + b'{"instruction": "torn\n' + ROWS[3])
    done = cli("filter", source, "--out", out)
    assert done.returncode == 2
    assert f"{source}:2: not JSON" in done.stderr
    assert not out.exists()
    done = cli("filter", source, "--out", out, "--skip-bad-lines")
    assert done.returncode == 3
    assert "1 line(s) could not be read" in done.stderr
    assert len(read_lines(out)) == 2


def test_bad_use_is_one_line(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(ROWS[0])
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    cases = [
        (("filter", tmp_path / "none", "--out", out), "no such file"),
        (("filter", source, "--out", out, "--threshold", 0), "--threshold 0.0"),
        (("filter", source, "--out", out, "--rules", "x"), "--rules x: one of alpaca, self-instruct, none"),
        (("filter", source, "--out", source), "must name other files"),
        (("filter", source, "--out", blocker / "out.jsonl"), "cannot be written to"),
        (("filter", source), "Missing option '--out'"),
    ]
    for arguments, wanted in cases:
        done = cli(*arguments)
        assert done.returncode == 2, arguments
        assert wanted in done.stderr
        assert len(done.stderr.splitlines()) == 1
