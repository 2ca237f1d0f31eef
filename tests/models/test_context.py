"""The context that config.json tells, under each of the names families give it, nested or left to the class."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder, check_model_folder
from selfinstruct_local.models.folder import ASSUMED_CONTEXT, NO_LIMIT


def _folder(path: Path, **config: Any) -> ModelFolder:
    (path / "config.json").write_bytes(orjson.dumps({"architectures": ["SomeForCausalLM"], **config}))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"not read here")
    return check_model_folder(path)


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 777}, 777),
        ({"n_positions": 777}, 777),
        ({"n_ctx": 777}, 777),
        ({"max_seq_len": 777}, 777),
        ({"max_sequence_length": 777}, 777),
        ({"seq_length": 777}, 777),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 777}}, 777),
        ({"max_position_embeddings": 5, "text_config": {"max_position_embeddings": 777}}, 777),
        ({"max_position_embeddings": 777, "text_config": {"vocab_size": 9}}, 777),
        ({"max_position_embeddings": 777, "text_config": "no object"}, 777),
    ],
)
def test_a_config_tells_its_context(tmp_path: Path, config: dict[str, Any], context: int) -> None:
    assert _folder(tmp_path, **config).context == context


def test_what_a_published_config_leaves_out_is_taken_from_its_class(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}
    assert _folder(tmp_path, model_type="gemma3", text_config=text).context == 131_072
    assert _folder(tmp_path, model_type="gpt2").context == 1024


@pytest.mark.parametrize("family", ["mamba", "bloom"])
def test_a_model_without_positions_has_no_limit(tmp_path: Path, family: str) -> None:
    folder = _folder(tmp_path, model_type=family)
    assert folder.context == NO_LIMIT
    folder.check_context(1_000_000)
    assert "unlimited" in folder.context_told


@pytest.mark.parametrize("config", [{}, {"model_type": "none"}, {"model_type": ["gpt2"]}])
def test_the_context_of_an_unknown_model_is_assumed(tmp_path: Path, config: dict[str, Any]) -> None:
    assert _folder(tmp_path, **config).context == ASSUMED_CONTEXT


@pytest.mark.parametrize("config", [{"n_positions": "many"}, {"text_config": {"max_position_embeddings": [4096]}}])
def test_a_context_that_is_no_number_is_named(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"(n_positions|max_position_embeddings) in config\.json "):
        _folder(tmp_path, **config)
