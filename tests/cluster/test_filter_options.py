"""What `filter --engine ray` refuses before Ray is started."""

import re
from pathlib import Path

import pytest

from selfinstruct_local.runs.store import RunStore
from tests.conftest import RunCli

TASK = '{"instruction": "Name three rivers.", "input": "", "output": "Nile, Volga, Rhine"}\n'


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--engine slurm", "--engine slurm: .*local, ray"),
        ("--ray-address auto", "--ray-address: .*--engine ray"),
        ("--workers 2", "--workers: .*--engine ray"),
        ("--engine ray --ray-address auto --workers 2", "--workers 2: .*--ray-address"),
        ("--engine ray --rejects no.jsonl", "--rejects no.jsonl: .*--engine ray .*'rejected' of --out"),
        ("--engine ray --verify 10", "--verify: .*--engine ray"),
        ("--engine ray --prefilter none", "--prefilter none: .*--engine ray.* exact or minhash"),
        ("--engine ray --threshold 2", "--threshold 2.0: .*above 0 and at most 1"),
    ],
)
def test_wrong_use_is_one_line(flags: str, said: str, tmp_path: Path, cli: RunCli) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(TASK)
    done = cli("filter", tasks, *flags.split(), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.match(f"selfinstruct: {said}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, cli: RunCli) -> None:
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    tasks.write_text(TASK)
    out.mkdir()
    (out / "mine").touch()
    done = cli("filter", tasks, "--engine", "ray", "--out", out)
    assert done.returncode == 2
    assert f"--out {out}: " in done.stderr
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_an_address_where_nothing_answers(tmp_path: Path, cli: RunCli) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(TASK)
    for address, why in (("127.0.0.1:1", "nothing answers there"), ("auto", "Could not find any running Ray")):
        done = cli("filter", tasks, "--engine", "ray", "--ray-address", address, "--out", tmp_path / "out")
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"selfinstruct: --ray-address {address}: {why}")
        assert not (tmp_path / "out").exists()


def test_runs_of_different_settings_are_not_merged_unasked(tmp_path: Path, cli: RunCli) -> None:
    flags = []
    for name, threshold in (("a", 0.7), ("b", 0.6)):
        with RunStore(tmp_path / name) as store:
            store.create({"rules": "alpaca", "threshold": threshold, "lang": "en", "profile": "alpaca"}, [])
        flags += ["--run", tmp_path / name]
    done = cli("filter", *flags, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"--run {tmp_path / 'b'}: several runs need --engine ray" in done.stderr
    done = cli("filter", *flags, "--engine", "ray", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"--run {tmp_path / 'b'}: threshold is 0.6, and 0.7 in {tmp_path / 'a'}; " in done.stderr
    assert "--threshold" in done.stderr.rpartition(";")[2]
