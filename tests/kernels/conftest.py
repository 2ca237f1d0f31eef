"""Fixtures of the kernel tests."""

from pathlib import Path

import pytest

from tests.kernels import oracles


@pytest.fixture(scope="session")
def corpus() -> list[list[str]]:
    """Token lists rich in near copies."""
    return oracles.near_copies(1, 6000)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SELFINSTRUCT_CACHE", raising=False)
    return tmp_path
