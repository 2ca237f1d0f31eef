"""The main job in a network namespace that holds nothing but a loopback interface."""

import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.models import ModelFolder


@pytest.mark.engine
@pytest.mark.training
def test_the_main_job_needs_no_network(
    tmp_path: Path,
    embedded_model: ModelFolder,
    can_unshare_network: bool,  # noqa: FBT001
) -> None:
    if not can_unshare_network:
        pytest.skip("NOT TESTED: the main job without a network; this machine lets no test make a network namespace")
    command = f"{sys.executable} -m selfinstruct_local"
    script = f"""
        set -e
        ip link set lo up
        test "$(ls /sys/class/net | tr '\\n' ' ')" = "lo " || test "$(ip -o link | wc -l)" = 1
        {command} generate --run run --num 2 --in-flight 8 --window 16 --tasks-per-prompt 2 --max-tokens 200
        {command} filter run/alpaca.json --out kept.jsonl
        {command} train --data run/alpaca.json --out adapter --max-steps 1 --batch-size 1
        {command} chat --once "Name a river." --adapter adapter --max-tokens 4
    """
    done = subprocess.run(
        ["unshare", "-r", "-n", "bash", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "alpaca.json").stat().st_size > 10
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert embedded_model.path.is_dir()
