"""Fixtures for all tests: the command line as a process, the embedded model, a scripted engine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import orjson
import pytest

from selfinstruct_local import models

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """Nothing that a test starts may reach for the network."""
    from selfinstruct_local.offline import go_offline

    go_offline()
    # The machines that run this are shared: how long an example takes says nothing.
    hypothesis.settings.register_profile("here", deadline=None)
    hypothesis.settings.load_profile("here")


@pytest.fixture
def cli() -> RunCli:
    """Runs `selfinstruct` as a process of its own and gives exit code, stdout and stderr."""

    def run(
        *arguments: object, timeout: float = 300, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "selfinstruct_local", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **(env or {})}
        )

    return run


@pytest.fixture(scope="session")
def embedded_model() -> models.ModelFolder:
    """The embedded model, prepared if it is not."""
    return models.prepare_embedded()


@pytest.fixture
def bare_model(tmp_path: Path) -> Path:
    """A folder that looks like a model to the checks, and could not be loaded."""
    folder = tmp_path / "bare-model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
    (folder / "config.json").write_bytes(orjson.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"not really weights")
    return folder


@pytest.fixture
def can_unshare_network() -> bool:
    """Whether this machine lets a test make a network namespace."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = subprocess.run(["unshare", "-r", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return probe.returncode == 0
