"""Tokenizers that are larger than the embeddings of their model. Fault 48."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.doctor.model import check_folder, check_tokenizer
from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.chat import Chat
from selfinstruct_local.models import find_model
from selfinstruct_local.models.vocabulary import check_training_tokens, embedding_rows
from selfinstruct_local.train.trainer import load_tokenizer
from tests.conftest import RunCli
from tests.models.llamas import make_llama, make_tokenizer


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A LLaMA whose tokenizer got two words and a padding token, and whose embeddings got no row for them."""
    folder = make_llama(tmp_path / "short")
    add_tokens(folder, "volcano", "glacier")
    return folder


def add_tokens(folder: Path, *tokens: str, special: bool = False) -> None:
    from tokenizers import AddedToken, Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(each, normalized=False, special=special) for each in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))


def tasks(tmp_path: Path, answer: str) -> Path:
    file = tmp_path / "tasks.json"
    file.write_bytes(
        orjson.dumps([{"instruction": f"name river {n}", "input": "", "output": answer} for n in range(4)])
    )
    return file


def test_the_header_tells_the_rows(short: Path) -> None:
    rows = make_tokenizer().get_vocab_size()
    assert embedding_rows(find_model(str(short))) == rows
    (short / "model.safetensors").write_bytes(b"not weights")
    assert embedding_rows(find_model(str(short))) is None


@pytest.mark.parametrize("answer", ["a volcano of ice", "a river"])
def test_the_audit_does_not_pass(short: Path, tmp_path: Path, cli: RunCli, answer: str) -> None:
    rows = make_tokenizer().get_vocab_size()
    done = cli("train", "--model", short, "--data", tasks(tmp_path, answer), "--dry-run")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert f"token {rows} ('volcano')" in last
    assert f"have {rows} rows" in last
    assert ("--data: " in last) == ("volcano" in answer)


def test_enlarged_embeddings_and_special_tokens_are_no_obstacle(short: Path, tmp_path: Path) -> None:
    model = find_model(str(short))
    tokenizer: Any = load_tokenizer(model)
    ids = tokenizer("a volcano")["input_ids"]
    with pytest.raises(UsageError, match="'volcano'"):
        check_training_tokens([ids], model)
    check_training_tokens([ids], model, pad_vocab_to=64)
    padded = make_llama(tmp_path / "padded")
    add_tokens(padded, "[PAD]", special=True)
    check_training_tokens([[1, 2]], find_model(str(padded)))


def test_chat_refuses_what_it_has_no_row_for(short: Path, caplog: pytest.LogCaptureFixture) -> None:
    chat = Chat(find_model(str(short)))
    assert "2 tokens ('volcano', 'glacier')" in caplog.text
    chat.answer("name a river", max_tokens=2)
    with pytest.raises(UsageError, match=r"token \d+ \('glacier'\)"):
        chat.answer("name a glacier", max_tokens=2)


def test_the_doctor_warns(short: Path) -> None:
    _, folder = check_folder(str(short))
    assert folder is not None
    finding = check_tokenizer(folder)
    assert finding.status == "warn"
    assert f"{make_tokenizer().get_vocab_size():,}" in finding.detail


def test_eval_refuses_references_without_a_row(short: Path, tmp_path: Path) -> None:
    from selfinstruct_local.evaluate.cases import read_held_out
    from selfinstruct_local.evaluate.evaluated_models import find_evaluated_models
    from selfinstruct_local.evaluate.losses import build_references

    (evaluated,) = find_evaluated_models([str(short)])
    with pytest.raises(UsageError, match=r"--data: .*token \d+ \('volcano'\)"):
        build_references(read_held_out([tasks(tmp_path, "a volcano")], 4, 0).cases, evaluated)
