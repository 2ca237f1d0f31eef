"""Old and broken model folders: what is corrected for use, and what is left alone. Fault 47."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from selfinstruct_local.doctor.model import check_folder, check_tokenizer
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import find_model
from selfinstruct_local.train.network import check_savable, make_savable
from selfinstruct_local.train.trainer import load_tokenizer
from tests.conftest import RunCli
from tests.models.llamas import TEXTS, edit, make_llama

EMPTY = {"__type": "AddedToken", "content": "", "lstrip": False}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def llama(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(sound, tmp_path / "llama")


def first_conversion(llama: Path) -> None:
    """The JSON files of LLaMA-7B as it was first passed on."""
    edit(llama / "config.json", architectures=["LLaMAForCausalLM"], bos_token_id=0, eos_token_id=1, pad_token_id=-1)
    edit(llama / "config.json", max_position_embeddings=..., max_sequence_length=2048)
    edit(llama / "generation_config.json", bos_token_id=0, eos_token_id=1, pad_token_id=0)
    empty = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "")
    edit(llama / "tokenizer_config.json", tokenizer_class="LLaMATokenizer", **empty)


def only_tokenizer_model(llama: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    (llama / "tokenizer.json").unlink()
    (llama / "texts.txt").write_text("\n".join(TEXTS))
    spm.SentencePieceTrainer.train(
        input=str(llama / "texts.txt"), model_prefix=str(llama / "tokenizer"), vocab_size=330, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (llama / "texts.txt").unlink()


def first_conversion_with_tokenizer_model(llama: Path) -> None:
    first_conversion(llama)
    only_tokenizer_model(llama)


def tokenizer_model_without_config(llama: Path) -> None:
    only_tokenizer_model(llama)
    (llama / "tokenizer_config.json").unlink()


def no_tokenizer_config(llama: Path) -> None:
    (llama / "tokenizer_config.json").unlink()


def empty_tokenizer_config(llama: Path) -> None:
    (llama / "tokenizer_config.json").write_text("{}")


def empty_added_tokens(llama: Path) -> None:
    edit(llama / "tokenizer_config.json", bos_token=EMPTY, eos_token=EMPTY, unk_token=EMPTY, pad_token=EMPTY)


def empty_special_tokens_map(llama: Path) -> None:
    edit(llama / "special_tokens_map.json", bos_token="", eos_token="", unk_token="", pad_token="")


def tokens_in_lists(llama: Path) -> None:
    edit(llama / "tokenizer_config.json", bos_token=["<s>"], eos_token=["</s>"])


def negative_padding(llama: Path) -> None:
    edit(llama / "config.json", pad_token_id=-1)
    edit(llama / "generation_config.json", pad_token_id=-1)


def negative_padding_of_generation(llama: Path) -> None:
    edit(llama / "generation_config.json", pad_token_id=-1)


def padding_without_a_row(llama: Path) -> None:
    edit(llama / "config.json", pad_token_id=32_000)
    edit(llama / "tokenizer_config.json", pad_token="[PAD]")


def empty_padding(llama: Path) -> None:
    edit(llama / "tokenizer_config.json", pad_token="")


def all_negative(llama: Path) -> None:
    edit(llama / "config.json", bos_token_id=-1, eos_token_id=-1, pad_token_id=-1)


BREAKS = [
    first_conversion, first_conversion_with_tokenizer_model, tokenizer_model_without_config, no_tokenizer_config,
    empty_tokenizer_config, empty_added_tokens, empty_special_tokens_map, tokens_in_lists, negative_padding,
    negative_padding_of_generation, padding_without_a_row, empty_padding, all_negative,
]  # fmt: skip


@pytest.mark.parametrize("harm", BREAKS)
def test_a_broken_llama_is_read_as_it_was_meant(
    llama: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    harm(llama)
    before = {path.name: path.read_bytes() for path in llama.iterdir()}
    model = find_model(str(llama))
    assert len([each for each in caplog.records if each.name.startswith("selfinstruct_local")]) == 1
    assert model.architecture == "LlamaForCausalLM"
    tokenizer: Any = load_tokenizer(model)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.pad_token_id in {None, 0}
    assert len(tokenizer) <= 400
    ids = tokenizer("name a river")["input_ids"]
    assert ids[0] == 1
    assert tokenizer.convert_ids_to_tokens(ids[1]).startswith("▁")
    config = AutoModelForCausalLM.from_pretrained(model.load_path).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)
    assert GenerationConfig.from_pretrained(model.load_path).eos_token_id == 2
    assert {path.name: path.read_bytes() for path in llama.iterdir()} == before


SOUND: list[dict[str, dict[str, Any]]] = [
    {},
    {"tokenizer_config.json": {"pad_token": "<unk>"}, "config.json": {"pad_token_id": 0}},
    {"tokenizer_config.json": {"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False}}},
    {"config.json": {"eos_token_id": [2, 7]}, "generation_config.json": {"eos_token_id": [2, 7], "pad_token_id": 2}},
    {"tokenizer_config.json": {"bos_token": None}},
    {"special_tokens_map.json": {"eos_token": {"content": "</s>"}, "additional_special_tokens": []}},
]


@pytest.mark.parametrize("values", SOUND)
def test_a_sound_folder_is_read_as_it_is(
    llama: Path, values: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    for name, change in values.items():
        edit(llama / name, **change)
    model = find_model(str(llama))
    assert (model.load_path, model.notes, dict(model.corrected)) == (model.path, (), {})
    assert not caplog.records


def test_the_embedded_model_needs_no_correction() -> None:
    from selfinstruct_local.models import prepare_embedded

    assert prepare_embedded().notes == ()


def test_a_view_follows_its_folder(llama: Path) -> None:
    negative_padding(llama)
    first = find_model(str(llama)).load_path
    assert find_model(str(llama)).load_path == first
    edit(llama / "config.json", rope_theta=5.0)
    second = find_model(str(llama)).load_path
    assert orjson.loads((second / "config.json").read_bytes())["rope_theta"] == 5.0
    (llama / "chat_template.jinja").write_text("{{ messages }}")
    assert (find_model(str(llama)).load_path / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_cache_that_cannot_be_written_to_is_one_clear_error(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    negative_padding(llama)
    (llama.parent / "file").write_text("")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(llama.parent / "file" / "cache"))
    with pytest.raises(UsageError, match=r"generation_config\.json.+set SELFINSTRUCT_CACHE"):
        _ = find_model(str(llama)).load_path


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "read with corrections" in line]


@pytest.mark.training
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_first_conversion_is_tuned_resumed_merged_and_asked(
    llama: Path, tmp_path: Path, cli: RunCli, method: str
) -> None:
    """The whole way of the model of the papers, and what comes of it loads without a correction."""
    first_conversion_with_tokenizer_model(llama)
    llama.chmod(0o500)  # nothing is written there
    tasks = tmp_path / "tasks.json"
    rows = [{"instruction": f"name river {n}", "input": "", "output": "the long blue river"} for n in range(8)]
    tasks.write_bytes(orjson.dumps(rows))
    env = {"SELFINSTRUCT_CACHE": str(tmp_path / "cache")}
    out, whole = tmp_path / "out", tmp_path / "out"
    options = ["--model", llama, "--data", tasks, "--out", out, "--method", method, "--save-steps", 1]
    first = cli("train", *options, "--max-steps", 2, env=env)
    assert first.returncode == 0, first.stderr
    assert len(lines(first.stderr)) == 1
    (out / "training.json").unlink()
    shutil.rmtree(out / "checkpoint-2")
    again = cli("train", *options, "--max-steps", 2, env=env)
    assert again.returncode == 0, again.stderr
    assert "step 1" in again.stderr
    if method == "lora":
        assert orjson.loads((out / "adapter_config.json").read_bytes())["base_model_name_or_path"] == str(llama)
        whole = tmp_path / "merged"
        merged = cli("merge", "--adapter", out, "--out", whole, env=env)
        assert merged.returncode == 0, merged.stderr
    asked = cli("chat", "--model", whole, "--once", "name a river", "--max-tokens", 4, env=env)
    assert (asked.returncode, lines(asked.stderr)) == (0, []), asked.stderr
    config = AutoModelForCausalLM.from_pretrained(whole).config
    assert (config.architectures, config.bos_token_id, config.eos_token_id) == (["LlamaForCausalLM"], 1, 2)
    assert AutoTokenizer.from_pretrained(whole)("name")["input_ids"][0] == 1
    assert {path.stat().st_mode & 0o777 for path in whole.glob("*.safetensors")} == {0o644}


def test_the_doctor_tells_of_corrections(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    first_conversion(llama)
    finding, folder = check_folder(str(llama))
    assert finding.status == "warn"
    assert 'tokenizer_class "LLaMATokenizer" -> "LlamaTokenizer"' in finding.detail
    assert folder is not None
    assert check_tokenizer(folder).status == "ok"
    assert not caplog.records


def test_what_could_not_be_saved_is_refused(sound: Path) -> None:
    model = find_model(str(sound))
    network: Any = AutoModelForCausalLM.from_pretrained(sound)
    check_savable(network, load_tokenizer(model), model)
    network.generation_config.pad_token_id = -1
    with pytest.raises(UsageError, match=r"could not be saved \(.*pad_token_id"):
        check_savable(network, load_tokenizer(model), model)
    make_savable(network)
    check_savable(network, load_tokenizer(model), model)
