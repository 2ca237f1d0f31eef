"""A LLaMA of two narrow layers with the embedded model's tokenizer: trained in a second."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from selfinstruct_local.models import ModelFolder, find_model


@pytest.fixture(scope="session")
def tiny_model(embedded_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = tmp_path_factory.mktemp("tiny-llama")
    for path in embedded_model.path.iterdir():
        if path.suffix in {".json", ".txt", ".jinja"} and path.name not in {
            "config.json",
            "model.safetensors.index.json",
        }:
            shutil.copy(path, folder)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    make_model: Any = LlamaForCausalLM  # without types
    make_model(config).save_pretrained(folder)
    return find_model(str(folder))


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    file = tmp_path / "tasks.jsonl"
    rows = [
        f'{{"instruction": "Say it {n} times.", "input": "", "output": "{" it" * (n % 13 + 1)}"}}' for n in range(32)
    ]
    file.write_text("\n".join(rows), encoding="utf-8")
    return file
