"""Who a name stands for, where an adapter's base is found, and what each is asked."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.engines.base import RequestKey
from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.cases import Case
from selfinstruct_local.evaluate.evaluated_models import find_evaluated_models
from selfinstruct_local.models import find_model
from selfinstruct_local.templates.alpaca import alpaca_prompt
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.sources import TrainingSample

KEY = RequestKey(3, "answer", 0)


def sample(question: str, given: str = "", *, verbatim: bool = False) -> Case:
    return Case(TrainingSample((Turn("user", question), Turn("assistant", "5")), given, verbatim))


def lay_adapter(folder: Path, config: Mapping[str, object], manifest: Mapping[str, object] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(orjson.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"not really weights")
    if manifest is not None:
        (folder / "training.json").write_bytes(orjson.dumps(manifest))
    return folder


def chat_model(folder: Path, bare_model: Path) -> Path:
    shutil.copytree(bare_model, folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    return folder


def test_each_is_asked_by_what_belongs_to_it(bare_model: Path, tmp_path: Path) -> None:
    chats = chat_model(tmp_path / "chats", bare_model)
    trained = {"base_model": str(chats), "base_model_fingerprint": find_model(str(chats)).fingerprint}
    tuned = lay_adapter(tmp_path / "tuned", {}, {**trained, "template": "chat"})
    elsewhere = lay_adapter(tmp_path / "elsewhere", {"base_model_name_or_path": str(chats)})
    whole = chat_model(tmp_path / "whole", bare_model)
    (whole / "training.json").write_bytes(orjson.dumps({"template": "alpaca"}))
    names = [str(each) for each in (bare_model, chats, tuned, elsewhere, whole)]
    found = find_evaluated_models(names)
    assert [each.template for each in found] == ["alpaca", "chat", "chat", "alpaca", "alpaca"]
    assert [each.name for each in found] == ["bare-model", "chats", "tuned", "elsewhere", "whole"]
    assert [each.adapter for each in found] == [None, None, tuned, elsewhere, None]
    assert {each.folder.path for each in found[1:4]} == {chats}
    assert {each.template for each in find_evaluated_models(names, template="alpaca")} == {"alpaca"}


def test_a_base_that_moved_is_named(bare_model: Path, tmp_path: Path) -> None:
    fingerprint = find_model(str(bare_model)).fingerprint
    told = {"base_model": "/gone/base", "base_model_fingerprint": fingerprint}
    adapter = lay_adapter(tmp_path / "adapter", {}, told)
    with pytest.raises(UsageError, match=r"\(/gone/base\) .*; name it with --base"):
        find_evaluated_models([str(adapter)])
    (found,) = find_evaluated_models([str(adapter)], base=str(bare_model))
    assert found.folder.path == bare_model


def test_folders_of_one_name_are_told_apart(bare_model: Path, tmp_path: Path) -> None:
    config = {"base_model_name_or_path": str(bare_model)}
    first, second = (lay_adapter(tmp_path / run / "adapter", config) for run in ("one", "two"))
    names = [each.name for each in find_evaluated_models([str(bare_model), str(first), str(second)])]
    assert names == ["bare-model", str(first), str(second)]


def test_what_each_is_asked(bare_model: Path, tmp_path: Path) -> None:
    chats = chat_model(tmp_path / "chats", bare_model)
    plain, chat = find_evaluated_models([str(bare_model), str(chats)])
    request = plain.request(KEY, sample("Add.", "2, 3"), 64)
    assert (request.key, request.prompt, request.turns) == (KEY, alpaca_prompt("Add.", "2, 3"), ())
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.stop) == (0.0, 64, ())
    request = chat.request(KEY, sample("Add.", "2, 3"), 64)
    assert (request.prompt, request.turns) == ("", (Turn("user", "Add.\n\n2, 3"),))
    assert chat.request(KEY, sample("Say it."), 64).turns == (Turn("user", "Say it."),)
    for evaluated in (plain, chat):
        request = evaluated.request(KEY, sample("Once upon", verbatim=True), 64)
        assert (request.prompt, request.turns) == ("Once upon", ())
