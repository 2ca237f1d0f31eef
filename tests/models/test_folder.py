from pathlib import Path

import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import check_model_folder, find_model


def test_a_whole_folder_is_taken(bare_model: Path) -> None:
    folder = check_model_folder(bare_model)
    assert (folder.architecture, folder.context) == ("LlamaForCausalLM", 2048)
    before = folder.fingerprint
    (bare_model / "model.safetensors").write_bytes(b"other weights, new")
    assert check_model_folder(bare_model).fingerprint != before


@pytest.mark.parametrize(
    "name",
    [
        "chat_template.jinja", "chat_template.json", "chat_templates/tools.jinja",
        "additional_chat_templates/tools.jinja", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
        "added_tokens.json", "generation_config.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json",
        "tokenizer.model.v3", "params.json",
    ],
)  # fmt: skip
def test_each_file_that_decides_an_answer_is_in_the_fingerprint(bare_model: Path, name: str) -> None:
    """Fault 46: it changes when the file comes, when its content changes, and is what it was when the file goes."""
    before = check_model_folder(bare_model)
    file = bare_model / name
    file.parent.mkdir(exist_ok=True)
    found = []
    for content in ('{"a": 1}', '{"a": 2}'):
        file.write_text(content)
        found.append(check_model_folder(bare_model))
    assert len({each.fingerprint for each in [before, *found]}) == 3
    assert found[0].differences(found[1].fingerprint, found[1].files) == [name]
    file.unlink()
    assert check_model_folder(bare_model) == before


def test_other_files_are_not_in_the_fingerprint(bare_model: Path) -> None:
    before = check_model_folder(bare_model)
    for name in ("README.md", "LICENSE", "training.json", "loss.csv"):
        (bare_model / name).write_text("{}")
    assert check_model_folder(bare_model) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("chat_template.json", '{"chat_template": "{{ messages }}"}'),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
    ],
)
def test_a_chat_template_is_found_in_each_of_its_places(bare_model: Path, name: str, content: str) -> None:
    (bare_model / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    folder = check_model_folder(bare_model)
    assert not folder.has_chat_template
    (bare_model / name).write_text(content)
    assert folder.has_chat_template


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        check_model_folder(folder)
    return str(caught.value)


def test_what_is_missing_is_named(bare_model: Path) -> None:
    (bare_model / "tokenizer.json").unlink()
    assert "no tokenizer" in refusal(bare_model)
    (bare_model / "model.safetensors").unlink()
    assert "no *.safetensors" in refusal(bare_model)
    (bare_model / "config.json").write_text("{")
    assert "not JSON" in refusal(bare_model)
    (bare_model / "config.json").write_text("[]")
    assert "not a JSON object" in refusal(bare_model)
    (bare_model / "config.json").unlink()
    assert "no config.json" in refusal(bare_model)
    assert "not a folder" in refusal(bare_model / "nowhere")


def test_weights_beside_those_of_the_index_are_not_counted(bare_model: Path) -> None:
    """Mistral's folders hold the same weights again, as consolidated.safetensors."""
    (bare_model / "consolidated.safetensors").write_bytes(b"the same again")
    assert len(check_model_folder(bare_model).weight_files) == 2
    index = {"weight_map": {"lm_head.weight": "model.safetensors"}}
    (bare_model / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    folder = check_model_folder(bare_model)
    assert folder.weight_files == [folder.path / "model.safetensors"]


def test_pickle_weights_are_refused_with_the_way_out(bare_model: Path) -> None:
    (bare_model / "model.safetensors").rename(bare_model / "pytorch_model.bin")
    assert f"selfinstruct models prepare {bare_model}" in refusal(bare_model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_is_refused(bare_model: Path, name: str) -> None:
    path = bare_model / name
    config = orjson.loads(path.read_bytes()) if path.exists() else {}
    path.write_bytes(orjson.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    assert "auto_map" in refusal(bare_model)


def test_a_missing_shard_is_named(bare_model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (bare_model / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    assert "model-00002-of-00002.safetensors" in refusal(bare_model)


def test_an_unknown_name_lists_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"no prepared model of that name \(prepared: none yet\)"):
        find_model("llama-7b")
