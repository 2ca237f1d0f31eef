"""Runs the fuzz target of the readers for a few seconds; for ten minutes in `make soak`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.oracles import SOAK

SECONDS = 600 if SOAK else 5


@pytest.mark.timeout(SECONDS + 300)
def test_only_documented_errors_escape(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the readers were not fuzzed: that needs atheris, which is missing")
    words = [sys.executable, str(Path(__file__).with_name("fuzz_readers.py")), f"-max_total_time={SECONDS}"]
    done = subprocess.run(
        words,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=SECONDS + 200,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None, done.stderr[-3000:]
    assert int(runs[1]) > 100
