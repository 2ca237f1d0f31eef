"""`selfinstruct filter --engine ray` as a person calls it, in trouble."""

import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from ray.exceptions import RayTaskError

from selfinstruct_local.cluster.session import ray_session
from selfinstruct_local.errors import RunError
from tests.cluster.files import WORKERS, on_one_machine, read_folder, records, write_lines

pytestmark = pytest.mark.ray


def test_it_survives_killed_workers_with_no_network(tmp_path: Path, can_unshare_network: bool) -> None:  # noqa: FBT001 - a fixture
    if not can_unshare_network:
        pytest.skip("needs leave to make a network namespace, which is missing")
    rows = records(60_000)
    paths = [write_lines(tmp_path / f"{number}.jsonl", rows[number::6]) for number in range(6)]
    alone = ["unshare", "-r", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command = [*alone, sys.executable, "-m", "selfinstruct_local", "filter", "--engine", "ray", *paths, "--json"]
    process = subprocess.Popen(
        [*map(str, command), "--workers", str(WORKERS), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},  # a Ray of its own is meant
    )
    stages = {"tokenise_part", "join_group", "write_part"}
    killed = kill_workers(process, stages)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert killed == stages
    kept, rejected = on_one_machine(paths, [], tmp_path / "local")
    assert orjson.loads(stdout)["kept"] == len(kept)
    assert read_folder(tmp_path / "out") == (kept, rejected)


def test_what_a_worker_says_for_the_user_is_one_line_and_a_defect_is_none() -> None:
    import ray

    def full(_row: dict[str, Any]) -> dict[str, Any]:
        message = "out: cannot be written (no space left on device); make room and give the same command again"
        raise RunError(message)

    with pytest.raises(RunError, match=r"^out: cannot be written"), ray_session(workers=1):
        ray.data.from_items([1]).map(full).take_all()
    with pytest.raises(RayTaskError, match="ZeroDivisionError"), ray_session(workers=1):
        ray.data.from_items([1]).map(lambda _row: {"n": 1 // 0}).take_all()


def kill_workers(process: "subprocess.Popen[str]", stages: Collection[str]) -> set[str]:
    """Kills a worker at each stage once; Ray names its processes by what they do."""
    killed: set[str] = set()
    while process.poll() is None and len(killed) < len(stages):
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue  # it has ended
            stage = next((each for each in stages if each in title), None)
            if title.startswith("ray::") and stage and stage not in killed:
                child.kill()
                killed.add(stage)
        time.sleep(0.02)
    return killed
