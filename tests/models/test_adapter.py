"""An adapter goes over the base that it was trained on, whichever command lays it there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.generate.launch import choose_model
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.models import find_model
from selfinstruct_local.models.adapter import base_of
from selfinstruct_local.models.folder import MANIFEST
from tests.conftest import RunCli
from tests.evaluate.test_evaluated_models import lay_adapter
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine

# What lays an adapter over a base, with what it needs besides the two; nothing is loaded before the base is checked.
COMMANDS = {
    "chat": "--once Hi",
    "generate": "--run {tmp}/new --dry-run",
    "translate": "--run {tmp}/run --to zh --into {tmp}/new --dry-run",
    "polish": "--run {tmp}/run --into {tmp}/new --dry-run",
    "serve": "--dry-run",
    "merge": "--out {tmp}/new --dry-run",
}


@pytest.fixture
def trained(bare_model: Path) -> dict[str, Any]:
    """What a training on the model would tell."""
    model = find_model(str(bare_model))
    facts = {"base_model_fingerprint": model.fingerprint, "base_model_files": dict(model.files)}
    return {"base_model": str(bare_model), **facts}


@pytest.fixture
def other(tmp_path: Path, bare_model: Path) -> Path:
    """A model of the same shape."""
    folder = tmp_path / "other"
    folder.mkdir()
    for file in bare_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.safetensors").write_bytes(b"quite other weights")
    return folder


def test_the_base_is_the_one_that_the_adapter_names(
    bare_model: Path, trained: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = find_model(str(bare_model))
    assert base_of(lay_adapter(tmp_path / "tuned", {"base_model_name_or_path": "/gone"}, trained)) == here
    assert base_of(lay_adapter(tmp_path / "elsewhere", {"base_model_name_or_path": str(bare_model)})) == here
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (bare_model / MANIFEST).write_text("{}")
    bare_model.rename(tmp_path / "cache" / "models" / "prepared")
    found = base_of(lay_adapter(tmp_path / "by-name", {"base_model_name_or_path": "prepared"}))
    assert found.path == tmp_path / "cache" / "models" / "prepared"


def test_an_engine_takes_the_base_that_the_adapter_names(
    bare_model: Path, trained: Mapping[str, Any], tmp_path: Path
) -> None:
    adapter = lay_adapter(tmp_path / "tuned", {}, trained)
    chosen = choose_model(None, GenerateSettings(), lambda _: pytest.fail("the embedded one was taken"), adapter)
    assert chosen.folder == find_model(str(bare_model))
    assert chosen.adapter == adapter


@pytest.mark.parametrize("config", [{}, {"base_model_name_or_path": "org/base"}, {"base_model_name_or_path": 7}])
def test_a_base_that_is_not_here_has_to_be_named(
    config: Mapping[str, object], bare_model: Path, tmp_path: Path
) -> None:
    adapter = lay_adapter(tmp_path / "elsewhere", config)
    with pytest.raises(UsageError, match=r"base model \(.+\) is not .+; name it with --model"):
        base_of(adapter)
    assert base_of(adapter, str(bare_model)) == find_model(str(bare_model))


def test_enlarged_embeddings_are_for_merge_alone(bare_model: Path, trained: Mapping[str, Any], tmp_path: Path) -> None:
    adapter = lay_adapter(tmp_path / "tuned", {}, {**trained, "settings": {"pad_vocab_to": 64}})
    with pytest.raises(UsageError, match=r"pad_vocab_to.+'selfinstruct merge'"):
        base_of(adapter)
    assert base_of(adapter, enlarges=True) == find_model(str(bare_model))


@pytest.mark.parametrize("name", ["training.json", "adapter_config.json"])
def test_a_broken_file_of_an_adapter_is_named(name: str, tmp_path: Path) -> None:
    adapter = lay_adapter(tmp_path / "tuned", {})
    (adapter / name).write_text("{torn")
    with pytest.raises(UsageError, match=rf"^--adapter .*{name}: not JSON"):
        base_of(adapter)


@pytest.mark.parametrize("command", COMMANDS)
def test_another_base_is_refused(
    command: str, trained: Mapping[str, Any], other: Path, tmp_path: Path, cli: RunCli
) -> None:
    adapter = lay_adapter(tmp_path / "tuned", {}, trained)
    generate(tmp_path / "run", settings(num=5), ScriptedEngine())
    words = COMMANDS[command].format(tmp=tmp_path).split()
    done = cli(command, "--adapter", adapter, "--model", other, *words)
    assert done.returncode == 2, done.stderr
    assert f"--adapter {adapter}: was trained on {trained['base_model']}, " in done.stderr
    assert f" {other} (weights)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_base_under_another_chat_template_is_another_base(
    bare_model: Path, trained: Mapping[str, Any], tmp_path: Path
) -> None:
    adapter = lay_adapter(tmp_path / "tuned", {}, trained)
    (bare_model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UsageError, match=r"\(chat_template.jinja\); "):
        base_of(adapter)
