import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.filters.files import BATCH
from tests.conftest import RunCli


def record(instruction: str, output: str = "ok", **more: object) -> bytes:
    return orjson.dumps({"instruction": instruction, "input": "", "output": output, **more})


ROWS = [
    record("Name the three longest rivers of Africa", tag="first"),
    record("Draw the longest river of Africa now"),
    record("Name the three longest rivers of Asia"),
    record("Explain why the sky looks blue"),
]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_filters_a_file(tmp_path: Path, cli: RunCli) -> None:
    source, out, rejects = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "rej.jsonl"
    source.write_bytes(b"\n".join(ROWS))
    done = cli("filter", source, "--out", out, "--rejects", rejects)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"kept 2 of 4 in [0-9.]+ s: {out}", done.stdout.splitlines()[0])
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
        "neighbor_file": str(source),
        "neighbor_row": 1,
        "score": 6 / 7,
    }


def test_several_files_are_filtered_as_if_they_were_one(tmp_path: Path, cli: RunCli) -> None:
    one, other, out, rejects = (tmp_path / name for name in ("a.jsonl", "b.json", "out.jsonl", "rej.jsonl"))
    one.write_bytes(b"\n".join(ROWS[:2]))
    other.write_bytes(b"[" + b",".join(ROWS[2:]) + b"]")
    done = cli("filter", one, other, "--out", out, "--rejects", rejects)
    assert done.returncode == 0, done.stderr
    assert [row["instruction"] for row in read_lines(out)] == [orjson.loads(ROWS[k])["instruction"] for k in (0, 3)]
    unsuitable, near = (row["rejected"] for row in read_lines(rejects))
    assert (unsuitable["file"], unsuitable["row"]) == (str(one), 2)
    assert (near["file"], near["row"], near["neighbor_file"], near["neighbor_row"]) == (str(other), 1, str(one), 1)


def test_threshold_rules_array_and_json_summary(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    source.write_bytes(b"[" + b",".join(ROWS) + b"]")
    done = cli("filter", source, "--out", out, "--threshold", 0.9, "--rules", "none", "--json")
    assert done.returncode == 0, done.stderr
    summary = orjson.loads(done.stdout)
    assert summary.pop("seconds") > 0
    assert summary == {"read": 4, "kept": 4, "instances": 0, "rejected": {}, "skipped_lines": 0, "out": str(out)}
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
    assert re.search(r": 1 .*line.*first: .*in\.jsonl:2: not JSON", done.stderr)
    assert len(read_lines(out)) == 2


def test_bad_use_is_one_line(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(ROWS[0])
    blocker = tmp_path / "blocker"
    blocker.write_text("")
    cases = [
        (("filter", tmp_path / "none", "--out", out), "no such file"),
        (("filter", source, "--out", out, "--threshold", 0), "--threshold 0.0"),
        (
            ("filter", source, "--out", out, "--rules", "x"),
            "one of alpaca, self-instruct, alpaca-2023, self-instruct-2022, none",
        ),
        (
            ("filter", source, "--out", out, "--rules", "alpaca-2023", "--lang", "zh"),
            "--rules alpaca-2023: the published",
        ),
        (("filter", source, "--out", blocker / "out.jsonl"), "cannot be written to"),
        (("filter", source), "--out is missing"),
    ]
    for arguments, wanted in cases:
        done = cli(*arguments)
        assert done.returncode == 2, arguments
        assert wanted in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_no_output_takes_the_place_of_what_is_read_or_of_a_run(tmp_path: Path, cli: RunCli) -> None:
    source, known, config = (tmp_path / name for name in ("in.jsonl", "known.jsonl", "config.yaml"))
    out = tmp_path / "out.jsonl"
    for path in (source, known):
        path.write_bytes(ROWS[0])
    config.write_text("threshold: 0.6\n")
    flags = ("--against", known, "--decontaminate", known, "--config", config)
    cases = [
        (("--out", source), f"--out {source}: the command reads it too"),
        (("--out", known), f"--out {known}: the command reads it too"),
        (("--out", out, "--rejects", config), f"--rejects {config}: the command reads it too"),
        (("--out", out, "--rejects", out), f"--rejects {out}: is the file of --out too"),
        (("--out", out, "--rejects", tmp_path / "run.sqlite"), "run.sqlite: the name is reserved"),
    ]
    for targets, wanted in cases:
        done = cli("filter", source, *flags, *targets)
        assert (done.returncode, wanted in done.stderr) == (2, True), done.stderr
    assert sorted(tmp_path.iterdir()) == sorted((source, known, config))


def test_other_files_neighbours_and_decontamination(tmp_path: Path, cli: RunCli) -> None:
    source, old, exam = (tmp_path / name for name in ("in.jsonl", "old.jsonl", "exam.jsonl"))
    out, rejects = tmp_path / "out.jsonl", tmp_path / "rej.jsonl"
    leaked = "the quick brown fox jumps over the lazy dog near the old mill at dawn"
    source.write_bytes(b"\n".join([*ROWS, record("Repeat a sentence word for word", f"Sure: {leaked}.")]))
    old.write_bytes(record("Explain why the sky is so blue"))
    exam.write_bytes(record("Complete the sentence", leaked.upper()))
    flags = ("--against", old, "--decontaminate", exam, "--rejects", rejects, "--verify", 50)
    done = cli("filter", source, "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    assert "verified: 50 pairs and 3 decisions agree" in done.stdout
    reasons = {row["instruction"]: row["rejected"] for row in read_lines(rejects)}
    assert reasons["Explain why the sky looks blue"]["neighbor_file"] == str(old)
    assert reasons["Repeat a sentence word for word"] == {
        "rule": "contaminated",
        "detail": "shares 3 13-gram(s) with the evaluation set",
        "row": 5,
    }
    assert [row["tag"] for row in read_lines(out)] == ["first"]


def test_chinese_is_seen_by_the_unicode_tokenizer_alone(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(record("请把下面的句子改写得更正式") + b"\n" + record("请把下面的句子改写得更加正式"))
    done = cli("filter", source, "--out", out, "--rules", "none", "--tokenizer", "unicode", "--json")
    assert orjson.loads(done.stdout)["rejected"] == {"not_novel": 1}
    done = cli("filter", source, "--out", out, "--rules", "none", "--json")
    assert orjson.loads(done.stdout)["kept"] == 2
    assert done.stderr.startswith("selfinstruct: warning: 2 texts have no token [a-z0-9]")


def test_texts_without_a_token_are_told_of_once(tmp_path: Path, cli: RunCli) -> None:
    source, known, exam = (tmp_path / name for name in ("in.jsonl", "known.jsonl", "exam.jsonl"))
    leaked = "the quick brown fox jumps over the lazy dog near the old mill at dawn"
    signs = [record("\u8bf7\u6539\u5199", "\u597d") for _ in range(3 * BATCH)]  # every batch has some
    source.write_bytes(b"\n".join(signs[:-1]))
    known.write_bytes(signs[-1])
    exam.write_bytes(record("\u8bf7\u6539\u5199", leaked))
    flags = ("--rules", "none", "--against", known, "--decontaminate", exam)
    done = cli("filter", source, "--out", tmp_path / "out.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if "warning" in line)
    assert warning.startswith(f"selfinstruct: warning: {3 * BATCH} texts have no token [a-z0-9]")


@pytest.mark.parametrize("prefilter", ["exact", "minhash", "none", "auto"])
def test_prefilters_and_parquet(prefilter: str, tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_bytes(b"\n".join(ROWS))
    done = cli("filter", source, "--out", out, "--prefilter", prefilter, "--rules", "none")
    assert done.returncode == 0, done.stderr
    if prefilter == "minhash":
        wanted = "minhash: pairs found on a sample of 4: 0 of 0 above 0.70, 0 of 0 above 0.75, 1 of 1 above 0.85"
        assert wanted in done.stderr
    again = cli("filter", out, "--out", tmp_path / "again.jsonl", "--json")
    assert orjson.loads(again.stdout)["read"] == 3


def test_verify_needs_an_exact_filter_of_the_rouge_tokenizer(tmp_path: Path, cli: RunCli) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(ROWS[0])
    for flags in (("--tokenizer", "unicode"), ("--prefilter", "minhash")):
        done = cli("filter", source, "--out", out, "--verify", 5, *flags)
        assert done.returncode == 2
        assert done.stderr.startswith("selfinstruct: --verify: ")
