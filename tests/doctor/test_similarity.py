import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_local.doctor import similarity
from selfinstruct_local.filters import verify
from selfinstruct_local.kernels import rouge_l
from tests.kernels import oracles


def test_the_kernels_decide_as_rouge_score_does_at_the_threshold_too() -> None:
    finding = similarity.check_kernels()
    assert finding.status == "ok"
    assert f"{similarity.PAIRS} pairs and {similarity.TEXTS} decisions agree" in finding.detail
    texts = similarity.make_texts()
    pairs = [oracles.rouge_l(texts[place], texts[place + 1]) for place in range(0, 6 * len(similarity.BOUNDARIES), 2)]
    for below, at, above in zip(pairs[::3], pairs[1::3], pairs[2::3], strict=True):
        assert below < similarity.THRESHOLD < above
        assert at == pytest.approx(similarity.THRESHOLD, abs=1e-12)


@pytest.mark.parametrize("wrong", [lambda one, other: rouge_l(one, other) * (1 - 2**-52), lambda _one, _other: 0.0])
def test_a_kernel_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[str, str], float]) -> None:
    monkeypatch.setattr(verify, "rouge_l", wrong)
    finding = similarity.check_kernels()
    assert finding.status == "fail"
    assert f"of {similarity.PAIRS} pairs and {similarity.TEXTS} decisions differ" in finding.detail


def test_a_threshold_that_is_off_by_a_bit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfinstruct_local import kernels

    class Index(kernels.NoveltyIndex):
        def __init__(self, *, threshold: float) -> None:
            super().__init__(threshold=threshold - 1e-12)

    monkeypatch.setattr(kernels, "NoveltyIndex", Index)
    assert similarity.check_kernels().status == "fail"


def test_folders_open_to_others_hold_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, shared, home, temporary = (tmp_path / name for name in ("own", "shared", "home", "temporary"))
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(own))
    assert similarity.check_cache().detail == f"{own / 'kernels'}, private"
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    monkeypatch.setenv("HOME", str(home))
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    from selfinstruct_local.kernels import cache

    for folder in cache._candidates():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
    finding = similarity.check_cache()
    assert finding.status == "warn"
    assert "SELFINSTRUCT_CACHE" in finding.mend
