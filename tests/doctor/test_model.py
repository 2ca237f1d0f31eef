import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import save_file

from selfinstruct_local.doctor import model
from selfinstruct_local.doctor.hardware import GIB, Card
from selfinstruct_local.doctor.model import Weights
from selfinstruct_local.models import ModelFolder, check_model_folder
from selfinstruct_local.train.settings import TrainSettings, load_train_settings

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def sharded_model(bare_model: Path, embedded_model: ModelFolder) -> Path:
    """A small LLaMA in two shards with an index and a real tokenizer; its numbers mean nothing."""
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 2048,
    }  # fmt: skip
    (bare_model / "config.json").write_bytes(orjson.dumps(config))
    (bare_model / "model.safetensors").unlink()
    save_file({"embed": np.zeros((100, 64), np.float32)}, bare_model / SHARDS[0], metadata={"format": "pt"})
    others: dict[str, np.ndarray[Any, Any]] = {"norm": np.zeros(64, np.float16), "packed": np.zeros((8, 8), np.int32)}
    save_file(others, bare_model / SHARDS[1])
    index = {"weight_map": {"embed": SHARDS[0], "norm": SHARDS[1], "packed": SHARDS[1]}}
    (bare_model / "model.safetensors.index.json").write_bytes(orjson.dumps(index))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(embedded_model.path / name, bare_model / name)
    return bare_model


def test_whole_shards_are_counted_by_their_headers(sharded_model: Path) -> None:
    finding, weights = model.check_weights(check_model_folder(sharded_model))
    assert finding.status == "ok"
    assert weights == Weights(files=2, bytes=6400 * 4 + 64 * 2 + 64 * 4, floats=6464, others=256)
    assert (weights.loaded(2), weights.loaded(4)) == (6464 * 2 + 256, 6464 * 4 + 256)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def damage_header(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:8] + b"#" + raw[9:])


def leave_a_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 25600\n")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, " bytes, "),
        (lengthen, " bytes, "),
        (empty, "no safetensors header"),
        (cut_in_header, "no safetensors header"),
        (damage_header, "corrupt"),
        (leave_a_pointer, "Git LFS"),
    ],
)
def test_a_shard_that_is_not_whole_fails_and_is_named(
    sharded_model: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(sharded_model / SHARDS[0])
    finding, weights = model.check_weights(check_model_folder(sharded_model))
    assert (finding.status, weights) == ("fail", None)
    assert finding.detail.startswith(f"{SHARDS[0]}: ")
    assert said in finding.detail
    assert finding.mend


def test_shards_of_another_model_fail(sharded_model: Path) -> None:
    shutil.copy2(sharded_model / SHARDS[1], sharded_model / SHARDS[0])
    finding, _ = model.check_weights(check_model_folder(sharded_model))
    assert finding.status == "fail"
    assert finding.detail.startswith("1 tensors of the index ")
    assert " embed" in finding.detail


def test_a_folder_that_is_not_safe_fails_with_the_mend(sharded_model: Path) -> None:
    assert model.check_folder(str(sharded_model))[0].status == "ok"
    (sharded_model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "evil.Tokenizer"}}')
    finding, folder = model.check_folder(str(sharded_model))
    assert (finding.status, folder) == ("fail", None)
    assert "auto_map" in finding.detail
    (sharded_model / "tokenizer_config.json").unlink()
    for shard in SHARDS:
        (sharded_model / shard).rename(sharded_model / f"pytorch_{shard}.bin")
    finding, _ = model.check_folder(str(sharded_model))
    assert finding.status == "fail"
    assert "only pickle weights" in finding.detail
    assert "selfinstruct models prepare" in finding.mend


def test_a_context_below_the_default_is_told(sharded_model: Path) -> None:
    config = orjson.loads((sharded_model / "config.json").read_bytes())
    (sharded_model / "config.json").write_bytes(orjson.dumps({**config, "max_position_embeddings": 1024}))
    finding, folder = model.check_folder(str(sharded_model))
    assert (finding.status, folder is not None) == ("warn", True)
    assert "--max-model-len" in finding.mend
    assert "2,048" in finding.mend


def test_a_file_that_cannot_be_read_fails(sharded_model: Path) -> None:
    folder = check_model_folder(sharded_model)
    (sharded_model / SHARDS[0]).unlink()
    (sharded_model / SHARDS[0]).mkdir()
    finding, weights = model.check_weights(folder)
    assert (finding.status, weights) == ("fail", None)
    assert "cannot be read (is a directory)" in finding.detail
    config = sharded_model / "config.json"
    config.unlink()
    config.mkdir()
    finding, _ = model.check_folder(str(sharded_model))
    assert finding.detail == f"{config}: cannot be read (is a directory)"


def test_a_missing_shard_and_a_missing_folder_fail(sharded_model: Path) -> None:
    (sharded_model / SHARDS[1]).unlink()
    assert SHARDS[1] in model.check_folder(str(sharded_model))[0].detail
    finding, _ = model.check_folder(str(sharded_model / "nowhere"))
    assert (finding.status, "no such folder" in finding.detail) == ("fail", True)


def test_without_a_model_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path))
    finding, folder = model.check_folder(None)
    assert (finding.status, folder) == ("warn", None)
    assert "selfinstruct models prepare" in finding.mend


def test_a_broken_tokenizer_fails(sharded_model: Path) -> None:
    (sharded_model / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "none"}}')
    finding = model.check_tokenizer(check_model_folder(sharded_model))
    assert finding.status == "fail"
    assert finding.detail.startswith("cannot be loaded (")


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_told() -> None:
    assert model._judge_tokenizer(32000, ends=True, embedded=32000).status == "ok"
    finding = model._judge_tokenizer(32001, ends=True, embedded=32000)
    assert finding.status == "warn"
    assert "32,001 tokens" in finding.detail
    assert "32,000" in finding.detail
    assert "no end-of-sequence token" in model._judge_tokenizer(32000, ends=False, embedded=None).detail


def test_loading_is_judged_by_cards_or_by_main_memory() -> None:
    weights = Weights(files=3, bytes=14 * GIB, floats=7 * GIB, others=0)
    assert model.check_loading(weights, (), 32 * GIB).status == "ok"
    assert model.check_loading(weights, (), 29 * GIB).status == "fail"
    card = Card("NVIDIA L4", 12 * GIB, 12 * GIB, (8, 9), (7, 5))
    spread = model.check_loading(weights, (card, card), 0)
    assert (spread.status, "--tensor-parallel 2" in spread.mend) == ("warn", True)
    assert model.check_loading(weights, (card,), 999 * GIB).status == "fail"
    assert model.check_loading(weights, (Card("NVIDIA A10", 24 * GIB, 23 * GIB, (8, 6), (7, 5)),), 0).status == "ok"


def test_a_training_that_does_not_fit_fails_where_it_is_meant(sharded_model: Path, tmp_path: Path) -> None:
    folder, settings = check_model_folder(sharded_model), TrainSettings()
    assert model.check_training(folder, settings, (), 64 * GIB, planned=True).status == "ok"
    tight = [model.check_training(folder, settings, (), GIB >> 3, planned=planned) for planned in (True, False)]
    assert [each.status for each in tight] == ["fail", "warn"]
    assert "--batch-size" in tight[0].mend
    small = Card("Tesla", GIB, GIB, (8, 0), (7, 5))
    assert model.check_training(folder, settings, (small,), 64 * GIB, planned=True).status == "fail"
    large = Card("NVIDIA H100", 80 * GIB, 79 * GIB, (9, 0), (7, 5))
    assert model.check_training(folder, settings, (large,), 0, planned=True).status == "ok"
    assert model.check_room(folder, settings, tmp_path, planned=True).status == "ok"
    more = settings.model_copy(update={"keep_checkpoints": 10_000_000})
    full = model.check_room(folder, more, tmp_path, planned=True)
    assert (full.status, "name another folder" in full.mend) == ("fail", True)


def test_a_four_bit_training_without_its_library_fails(sharded_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_train_settings("qlora-7b", None, {})
    monkeypatch.setattr(model, "find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    finding = model.check_training(check_model_folder(sharded_model), settings, (), 64 * GIB, planned=True)
    assert (finding.status, finding.mend) == ("fail", "install this package with its extra 'train'")
    assert "bitsandbytes" in finding.detail


def test_a_model_that_no_plan_can_be_made_for_is_told(bare_model: Path) -> None:
    finding = model.check_training(check_model_folder(bare_model), TrainSettings(), (), 64 * GIB, planned=False)
    assert finding.status == "warn"
    assert "config.json cannot be used" in finding.detail


def test_missing_libraries_of_training_are_told(sharded_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda _name: None)
    folder = check_model_folder(sharded_model)
    found = [
        model.check_tokenizer(folder),
        model.check_training(folder, TrainSettings(), (), 64 * GIB, planned=False),
        model.check_room(folder, TrainSettings(), sharded_model, planned=False),
    ]
    assert {(each.status, each.mend) for each in found} == {("warn", "install this package with its extra 'train'")}
