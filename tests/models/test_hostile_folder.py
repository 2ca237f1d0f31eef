"""Model folders that would run code or reach out of their place: refused before anything is loaded.

The numbers are those of docs/faults.md.
"""

import os
import pickle
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import check_model_folder
from tests.conftest import RunCli

CODE = "import pathlib; pathlib.Path({marker!r}).write_text('ran')\nclass Evil: ...\n"
COMMANDS = {
    "generate": ("generate", "--run", "{tmp}/run", "--model", "{model}"),
    "chat": ("chat", "--once", "Hi", "--model", "{model}"),
    "train": ("train", "--data", "{tmp}/data.jsonl", "--out", "{tmp}/out", "--model", "{model}"),
    "train on paper": ("train", "--data", "{tmp}/data.jsonl", "--dry-run", "--model", "{model}"),
    "serve": ("serve", "--model", "{model}"),
}


def words(command: str, tmp_path: Path, model: Path) -> list[str]:
    (tmp_path / "data.jsonl").write_text('{"instruction": "Name a river", "output": "Nile"}\n')
    return [word.format(tmp=tmp_path, model=model) for word in COMMANDS[command]]


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("command", COMMANDS)
def test_code_beside_a_model_is_never_run(command: str, bare_model: Path, tmp_path: Path, cli: RunCli) -> None:
    """Fault 35: `auto_map` with a module that would leave a mark, in each of the places it can stand."""
    marker = tmp_path / "ran"
    (bare_model / "evil.py").write_text(CODE.format(marker=str(marker)))
    config = orjson.loads((bare_model / "config.json").read_bytes())
    hook = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": "evil.Evil"}}
    (bare_model / "config.json").write_bytes(orjson.dumps({**config, "model_type": "evil", **hook}))
    done = cli(*words(command, tmp_path, bare_model))
    assert done.returncode == 2, done.stderr
    assert "('auto_map'), which is never run" in done.stderr
    (bare_model / "config.json").write_bytes(orjson.dumps(config))
    (bare_model / "tokenizer_config.json").write_bytes(orjson.dumps(hook))
    done = cli(*words(command, tmp_path, bare_model))
    assert done.returncode == 2, done.stderr
    assert "auto_map" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_pickle_weights_are_never_loaded(command: str, bare_model: Path, tmp_path: Path, cli: RunCli) -> None:
    """Fault 34: the message names the command that converts them, which refuses what is more than tensors."""
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    done = cli(*words(command, tmp_path, bare_model))
    assert done.returncode == 2, done.stderr
    assert f"convert them once with 'selfinstruct models prepare {bare_model}'" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_the_converting_command_runs_no_code(bare_model: Path, tmp_path: Path, cli: RunCli) -> None:
    """Fault 34 on the way out."""
    pytest.importorskip("torch")
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    cache = tmp_path / "cache"
    done = cli("models", "prepare", bare_model, env={"SELFINSTRUCT_CACHE": str(cache)})
    assert done.returncode == 2, done.stderr
    assert "more than tensors and is not loaded" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not list((cache / "models").glob("[!.]*"))


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../evil", "/evil"])
def test_a_name_stays_in_the_cache(name: str, bare_model: Path, tmp_path: Path, cli: RunCli) -> None:
    """Fault 33: what a model is kept under."""
    (bare_model / "pytorch_model.bin").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = cli("models", "prepare", bare_model, "--name", name, env={"SELFINSTRUCT_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 2, done.stderr
    assert f"{name!r}: not a model name" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors"])
def test_an_index_cannot_name_weights_outside_its_folder(name: str, bare_model: Path) -> None:
    """Fault 33: the shards of an index are those of its folder."""
    (bare_model.parent / "outside.safetensors").write_bytes(b"weights")
    index = {"weight_map": {"a": "model.safetensors", "b": name}}
    (bare_model / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    with pytest.raises(UsageError, match=r"1 weight file\(s\) of the index are missing"):
        check_model_folder(bare_model)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"architectures": "Llama"}'),
        ("config.json", b'{"architectures": ["L"], "max_position_embeddings": "many"}'),
        ("config.json", b'{"architectures": ["L"], "max_position_embeddings": [1]}'),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[" * 5000),
        ("tokenizer_config.json", b"7"),
        ("model.safetensors.index.json", b'{"weight_map": ["a"]}'),
        ("model.safetensors.index.json", b'{"weight_map": {"a": {"b": 1}}}'),
        ("model.safetensors.index.json", b"null"),
    ],
)
def test_a_twisted_folder_is_one_clear_error(name: str, content: bytes, bare_model: Path) -> None:
    """Faults 9 and 10 in a model folder."""
    (bare_model / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"--model {bare_model}"):
        check_model_folder(bare_model)
