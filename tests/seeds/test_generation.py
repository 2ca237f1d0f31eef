"""The seeds at work: a run from each file on the embedded model accepts tasks."""

from pathlib import Path

import orjson
import pytest

from selfinstruct_local.models import ModelFolder
from tests.conftest import RunCli
from tests.kernels.oracles import SOAK


@pytest.mark.engine
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not SOAK, reason="minutes of the real engine a language: make soak (make test does English once)")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_run_from_our_seeds_accepts_tasks(
    lang: str, tmp_path: Path, cli: RunCli, embedded_model: ModelFolder
) -> None:
    flags = ("--in-flight", 16, "--window", 24, "--tasks-per-prompt", 3, "--max-tokens", 300)
    done = cli(
        "generate", "--run", tmp_path, "--model", embedded_model.path, "--lang", lang, "--num", 3, *flags, timeout=1000
    )
    assert done.returncode == 0, done.stderr
    records = orjson.loads((tmp_path / "alpaca.json").read_bytes())
    assert len(records) >= 3
    if lang == "zh":
        assert any("\u4e00" <= character <= "\u9fff" for record in records for character in record["instruction"])
