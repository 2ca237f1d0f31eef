"""Tiny LLaMAs of random weights with a tokenizer like LLaMA's, as sound folders; the tests break them."""

from pathlib import Path
from typing import Any

import orjson

WORDS = ["river", "lake", "stone", "moss", "green", "blue", "tell", "name", "write", "list", "which", "why", "a", "the"]
TEXTS = [" ".join(WORDS[start:] + WORDS[:start]) for start in range(len(WORDS))] * 5
SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENIZER_CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}


def make_llama(folder: Path, **config: Any) -> Path:
    """Make a folder of a LLaMA with some 400 tokens and two layers; `config` replaces values of its config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(TOKENIZER_CONFIG))
    values: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    make_model: Any = LlamaForCausalLM  # without types
    make_model(LlamaConfig(**{**values, **config})).save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """Return a BPE tokenizer of LLaMA's kind, by the library `tokenizers`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer: Any = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token=SPECIAL[0]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    of_bytes = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL + of_bytes, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    raw = orjson.loads(tokenizer.to_str())
    raw["added_tokens"] = [each for each in raw["added_tokens"] if each["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(orjson.dumps(raw).decode())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file, which is made if it is missing; `...` takes one out."""
    before = orjson.loads(path.read_bytes()) if path.exists() else {}
    path.write_bytes(orjson.dumps({key: value for key, value in {**before, **values}.items() if value is not ...}))
