"""Arguments that cannot be meant are refused before anything starts."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("scipy")
pytest.importorskip("spacy")

import bench_yield


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "alpaca", "none-such"], "--only none-such: no such arm; there are alpaca-2023, "),
        (["--only", "alpaca", "--write"], "--write: the section has all arms"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bench(*_arguments: object, **_options: object) -> str:
        pytest.fail("it went on")

    monkeypatch.setattr(bench_yield, "bench", bench)
    monkeypatch.setattr(bench_yield, "go_offline", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench_yield.py", *arguments])
    with pytest.raises(SystemExit) as refused:
        bench_yield.main()
    assert refused.value.code == 2
    assert said in capsys.readouterr().err
