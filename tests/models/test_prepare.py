import os
import pickle
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.models import (
    EMBEDDED_NAME,
    ModelFolder,
    find_model,
    prepare_embedded,
    prepare_gguf,
    prepare_pickle,
)
from selfinstruct_local.models.folder import MANIFEST, prepared_models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_the_embedded_model_is_prepared_once(embedded_model: ModelFolder) -> None:
    assert embedded_model.architecture == "LlamaForCausalLM"
    stamp = (embedded_model.path / MANIFEST).stat().st_mtime_ns
    assert prepare_embedded() == embedded_model
    assert (embedded_model.path / MANIFEST).stat().st_mtime_ns == stamp
    assert EMBEDDED_NAME in prepared_models()
    manifest = orjson.loads((embedded_model.path / MANIFEST).read_bytes())
    assert "model.safetensors" in manifest["files"]


def test_pickle_weights_become_safetensors(bare_model: Path, cache: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    (bare_model / "model.safetensors").unlink()
    shared = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    torch.save({"a": shared, "b": shared.T}, bare_model / "pytorch_model-00001-of-00002.bin")
    torch.save({"c": torch.ones(2)}, bare_model / "pytorch_model-00002-of-00002.bin")

    folder = prepare_pickle(bare_model)
    assert folder.path == cache / "bare-model"
    tensors = load_file(folder.path / "model-00001-of-00002.safetensors")
    assert tensors["a"].dtype == torch.float16
    assert torch.equal(tensors["a"], shared)
    assert torch.equal(tensors["b"], shared.T)
    assert find_model("bare-model") == folder
    index = orjson.loads((folder.path / "model.safetensors.index.json").read_bytes())
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_holds_code_is_refused_and_not_run(bare_model: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    with pytest.raises(WrongUseError, match="holds more than tensors"):
        prepare_pickle(bare_model)
    assert not (tmp_path / "ran").exists()
    assert not list(cache.glob("*"))


def test_bad_sources_and_names_are_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(WrongUseError, match="no such file"):
        prepare_gguf(tmp_path / "none.gguf", "x")
    with pytest.raises(WrongUseError, match=r"no pytorch_model\*\.bin"):
        prepare_pickle(tmp_path)
    weights = tmp_path / "pytorch_model.bin"
    weights.write_bytes(b"")
    for name in ("..", "a/b"):
        with pytest.raises(WrongUseError, match="not a model name"):
            prepare_pickle(tmp_path, name)
    (cache / "mine").mkdir(parents=True)
    with pytest.raises(WrongUseError, match="is in the way"):
        prepare_pickle(tmp_path, "mine")
