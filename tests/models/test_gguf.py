"""GGUF files as safetensors: the values of transformers' own loader, in little memory. Fault 51."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import orjson
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import check_model_folder, prepare_gguf
from selfinstruct_local.models.gguf import convert_gguf
from tests.conftest import RunCli
from tests.models.ggufs import write_gguf

KINDS = gguf.GGMLQuantizationType


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def by_transformers(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Saves what transformers loads of the file."""
    options = {"gguf_file": source.name, "quantization_config": GgufConfig(dequantize=True), "dtype": dtype}
    network: Any = AutoModelForCausalLM.from_pretrained(str(source.parent), **options)
    network.save_pretrained(target)


@pytest.mark.parametrize(
    ("architecture", "kind", "dtype"),
    [
        ("llama", KINDS.Q8_0, "float32"),
        ("llama", KINDS.F16, "bfloat16"),
        ("qwen2", KINDS.Q4_1, "float16"),
        ("qwen3", KINDS.Q8_0, "bfloat16"),
        ("qwen3moe", KINDS.F16, "float32"),
        ("gemma2", KINDS.Q8_0, "float32"),
    ],
)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 20_000])
def test_the_weights_are_those_of_transformers(
    tmp_path: Path, architecture: str, kind: gguf.GGMLQuantizationType, dtype: Any, shard_bytes: int
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", architecture, kind=kind)
    made, theirs = tmp_path / "made", tmp_path / "theirs"
    made.mkdir()
    convert_gguf(source, made, dtype, shard_bytes)
    check_model_folder(made)
    by_transformers(source, theirs, getattr(torch, dtype))
    if architecture != "qwen3moe":  # its experts are saved one by one, as they are published and as vLLM loads them
        assert weights(made).keys() == weights(theirs).keys()
    networks: list[Any] = [AutoModelForCausalLM.from_pretrained(each, dtype="auto") for each in (made, theirs)]
    found, wanted = (each.state_dict() for each in networks)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in wanted.items())
    ours, other = (orjson.loads((each / "config.json").read_bytes()) for each in (made, theirs))
    assert ours == other
    assert (made / "model.safetensors").exists() == (shard_bytes > 1 << 20)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_embeddings_is_not_written(tmp_path: Path, tied: bool) -> None:  # noqa: FBT001
    source = write_gguf(tmp_path / "tiny.gguf", tied=tied)
    (tmp_path / "made").mkdir()
    convert_gguf(source, tmp_path / "made")
    assert ("lm_head.weight" in weights(tmp_path / "made")) == (not tied)
    assert orjson.loads((tmp_path / "made" / "config.json").read_bytes())["tie_word_embeddings"] == tied


def test_the_rotary_scaling_of_llama_3_is_kept(tmp_path: Path) -> None:
    """transformers passes over the tensor that holds it; computed as llama.cpp does, from transformers' own values."""
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=131_072,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    )  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 10_000 ** (torch.arange(8) / 8)
    source = write_gguf(tmp_path / "tiny.gguf", rope_factors=(plain / scaled).numpy())
    (tmp_path / "made").mkdir()
    convert_gguf(source, tmp_path / "made")
    told = orjson.loads((tmp_path / "made" / "config.json").read_bytes())["rope_parameters"]
    assert told == config.rope_parameters
    other = write_gguf(tmp_path / "other.gguf", rope_factors=(plain / scaled).numpy()[::-1].copy())
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="rotary frequencies"):
        convert_gguf(other, tmp_path / "none")


ENDS: list[tuple[tuple[str, ...], dict[str, str], list[str]]] = [
    # Llama 3 and 3.1 Instruct, whose files name the end of a turn as the end.
    (("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>"},
     ["<|eot_id|>", "<|end_of_text|>"]),
    (("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
     {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "eot": "<|eot_id|>", "eom": "<|eom_id|>"},
     ["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"]),
    # Qwen 2.5 Instruct, whose padding ends a text.
    (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), {"eos": "<|im_end|>", "padding": "<|endoftext|>"},
     ["<|im_end|>", "<|endoftext|>"]),
    # Gemma.
    (("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), {"bos": "<bos>", "eos": "<eos>"},
     ["<eos>", "<end_of_turn>"]),
    # SmolLM2, whose unknown token reads like an end.
    (("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
     {"bos": "<|im_start|>", "eos": "<|im_end|>", "unknown": "<|endoftext|>"}, ["<|im_end|>"]),
    (("<s>", "</s>"), {"bos": "<s>", "eos": "</s>"}, ["</s>"]),
]  # fmt: skip


@pytest.mark.parametrize(("special", "ids", "ends"), ENDS)
def test_all_end_tokens_are_named(
    tmp_path: Path, special: tuple[str, ...], ids: dict[str, str], ends: list[str]
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", special=special, ids=ids)
    (tmp_path / "made").mkdir()
    convert_gguf(source, tmp_path / "made")
    told = orjson.loads((tmp_path / "made" / "generation_config.json").read_bytes())["eos_token_id"]
    wanted = [256 + special.index(each) for each in ends]
    assert told == (wanted if len(wanted) > 1 else wanted[0])


_LIMITED = """
import resource, sys
from pathlib import Path
import gguf, torch, transformers, transformers.models.llama.modeling_llama
from selfinstruct_local.models.gguf import convert_gguf
small, large, out, room = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
for name in ("small", "large"):
    (out / name).mkdir()
convert_gguf(small, out / "small")  # all that is imported or compiled once
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
convert_gguf(large, out / "large", shard_bytes=4 << 20)
"""


def test_the_memory_of_a_conversion_is_bounded(tmp_path: Path) -> None:
    """Under a limit on memory that the tensors together do not fit: they take 119 MiB in float32, the largest 5."""
    small, large = write_gguf(tmp_path / "small.gguf"), write_wide(tmp_path / "large.gguf")
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, small, large, tmp_path, str(70 << 20)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    size = sum(path.stat().st_size for path in (tmp_path / "large").glob("*.safetensors"))
    assert size > 110 << 20


def write_wide(path: Path) -> Path:
    """A model of many layers."""
    import tests.models.ggufs as module

    before = module.HIDDEN, module.INNER, module.LAYERS
    module.HIDDEN, module.INNER, module.LAYERS = 640, 2048, 6
    try:
        return write_gguf(path)
    finally:
        module.HIDDEN, module.INNER, module.LAYERS = before


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    """transformers would draw it at random, as it does for Mixtral in GGUF."""
    source = write_gguf(tmp_path / "tiny.gguf", without="blk.1.ffn_up.weight")
    (tmp_path / "made").mkdir()
    with pytest.raises(UsageError, match=r"has no tensor for model\.layers\.1\.mlp\.up_proj\.weight"):
        convert_gguf(source, tmp_path / "made")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_torn_file_is_one_clear_error(tmp_path: Path, part: float) -> None:
    source = write_gguf(tmp_path / "tiny.gguf")
    whole = source.read_bytes()
    source.write_bytes(whole[: int(len(whole) * part)])
    (tmp_path / "made").mkdir()
    with pytest.raises(UsageError, match=r"tiny\.gguf: cannot be converted"):
        convert_gguf(source, tmp_path / "made")


def test_the_dtype_is_part_of_what_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: RunCli) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    source = write_gguf(tmp_path / "tiny.gguf")
    done = cli("models", "prepare", source, "--dtype", "bfloat16")
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.strip())
    assert {tensor.dtype for tensor in weights(made).values()} == {torch.bfloat16}
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}
    assert prepare_gguf(source, "tiny", "bfloat16").path == made
    with pytest.raises(UsageError, match=r"another model \(made with dtype bfloat16\)"):
        prepare_gguf(source, "tiny")
    assert prepare_gguf(source, "tiny-32").path.name == "tiny-32"
    assert cli("models", "prepare", source, "--dtype", "int8").returncode == 2
    assert cli("models", "prepare", tmp_path, "--dtype", "float16").returncode == 2


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfinstruct_local.models import gguf as module

    source = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(module, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UsageError, match=r"--dtype bfloat16.+SELFINSTRUCT_CACHE"):
        convert_gguf(source, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())
