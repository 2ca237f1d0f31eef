"""Adapters of PEFT before 0.6, whose weights are pickles. Fault 49."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.models import find_model, prepare_adapter
from selfinstruct_local.models.adapter import check_adapter
from tests.conftest import RunCli
from tests.models.llamas import make_llama

# As PEFT 0.2 wrote it.
OLD_CONFIG = {
    "base_model_name_or_path": "somebody/llama-7b-hf", "bias": "none", "enable_lora": None, "fan_in_fan_out": False,
    "inference_mode": True, "lora_alpha": 16, "lora_dropout": 0.05, "merge_weights": False, "modules_to_save": None,
    "peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def matrices(base: Path) -> dict[str, torch.Tensor]:
    """What an adapter holds, under the names of today."""
    network: Any = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(get_peft_model(network, lora))
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in found.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def old_adapter(folder: Path, tensors: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(orjson.dumps(OLD_CONFIG))
    torch.save(tensors, folder / "adapter_model.bin")
    return folder


def as_today(name: str) -> str:
    return name


def with_its_name(name: str) -> str:
    return name.replace(".weight", ".default.weight")


def with_another_name(name: str) -> str:
    return name.replace(".weight", ".alpaca.weight")


def without_root(name: str) -> str:
    return name.removeprefix("base_model.model.")


def in_a_wrapper(name: str) -> str:
    return f"module.{name}"


def compiled(name: str) -> str:
    return f"_orig_mod.{with_its_name(name)}"


NAMES = [as_today, with_its_name, with_another_name, without_root, in_a_wrapper, compiled]


@pytest.mark.parametrize("rename", NAMES)
def test_the_matrices_get_the_names_of_today(
    matrices: dict[str, torch.Tensor], base: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    old = old_adapter(tmp_path / "old", {rename(name): value.half() for name, value in matrices.items()})
    made = prepare_adapter(old)
    found = load_file(made / "adapter_model.safetensors")
    assert found.keys() == matrices.keys()
    assert all(torch.equal(found[name], value.half()) for name, value in matrices.items())
    kept = orjson.loads((made / "adapter_config.json").read_bytes())
    assert kept == {name: value for name, value in OLD_CONFIG.items() if name not in {"enable_lora", "merge_weights"}}
    assert prepare_adapter(old) == made
    network: Any = AutoModelForCausalLM.from_pretrained(base)
    tuned = PeftModel.from_pretrained(network, str(made)).state_dict()
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.{}weight"
    assert torch.equal(tuned[name.format("default.")], found[name.format("")].float())


def test_the_way_from_a_pickle_to_an_answer(
    matrices: dict[str, torch.Tensor], base: Path, tmp_path: Path, cli: RunCli
) -> None:
    old = old_adapter(tmp_path / "old", matrices)
    for command in (["merge", "--out", tmp_path / "merged"], ["chat", "--once", "Hi"]):
        refused = cli(*command, "--adapter", old, "--model", base)
        assert refused.returncode == 2, refused.stderr
        assert "only pickle weights (adapter_model.bin)" in refused.stderr
        assert f"convert them once with 'selfinstruct models prepare {old}'" in refused.stderr
    done = cli("models", "prepare", old)
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.strip())
    assert cli("models", "list").stdout.split("\t")[:2] == ["old", "LoRA adapter"]
    merged = cli("merge", "--adapter", made, "--model", base, "--out", tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    assert "ignoring" not in merged.stderr
    before, after = (load_file(each / "model.safetensors") for each in (base, tmp_path / "merged"))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {f"model.layers.{n}.self_attn.{part}_proj.weight" for n in (0, 1) for part in "qv"}
    assert Chat(find_model(str(base)), made).answer("name a river", max_tokens=3) is not None


class Evil:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_the_pickle_is_not_run(tmp_path: Path, cache: Path) -> None:
    old = old_adapter(tmp_path / "old", {})
    (old / "adapter_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    with pytest.raises(UsageError, match="more than tensors"):
        prepare_adapter(old)
    assert not (tmp_path / "ran").exists()
    assert not list(cache.glob("*"))


def test_a_bad_adapter_is_one_clear_error(tmp_path: Path, cache: Path) -> None:
    old = old_adapter(tmp_path / "old", {"model.norm.weight": torch.ones(2)})
    with pytest.raises(UsageError, match="one LoRA adapter"):
        prepare_adapter(old)
    torch.save({}, old / "adapter_model.bin")  # what a known bug of early scripts saved
    with pytest.raises(UsageError, match="not a dict of tensors"):
        prepare_adapter(old)
    (old / "adapter_config.json").write_bytes(orjson.dumps({**OLD_CONFIG, "enable_lora": [True, False, True]}))
    with pytest.raises(UsageError, match="merged projections"):
        prepare_adapter(old)
    (old / "adapter_config.json").unlink()
    with pytest.raises(UsageError, match=r"no adapter_config\.json"):
        prepare_adapter(old)
    assert not list(cache.glob("*"))


def test_safetensors_beside_the_pickle_are_taken(matrices: dict[str, torch.Tensor], tmp_path: Path) -> None:
    old = old_adapter(tmp_path / "old", {})
    save_file(matrices, old / "adapter_model.safetensors")
    check_adapter(old)


def test_an_adapter_whose_matrices_have_other_names_is_refused(
    matrices: dict[str, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    """PEFT would leave its own matrices in place, which change nothing, and only warn."""
    adapter = prepare_adapter(old_adapter(tmp_path / "old", matrices))
    renamed = shutil.copytree(adapter, tmp_path / "renamed")
    save_file({without_root(each): value for each, value in matrices.items()}, renamed / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="its file has no matrix for"):
        Chat(find_model(str(base)), renamed)
