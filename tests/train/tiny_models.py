"""Tiny random models of many families, made as their published folders are: two layers, hidden size 32.

`make_family(name, folder)` writes config, weights and tokenizer. All families share one vocabulary, trained here on
Alpaca's prompt and a few answers; what differs is what loaders and trainers read: architecture, names of config fields,
tied or untied head, rope scaling, files of the tokenizer, format of the weights.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfinstruct_local.templates.alpaca import alpaca_prompt

VOCABULARY = 512
SPECIAL = ("<unk>", "<s>", "</s>")
ANSWERS = ("Red, green and blue.", "Water boils at 100 degrees.", "The sum of two and three is five.", "列出三种颜色")

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_GEMMA = {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 256}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_IMAGE_TOKENS = {"image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5, "mm_tokens_per_image": 4}
_GEMMA3_TEXT = {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"]}
# Families of before LLaMA call their sizes otherwise.
_GPT2 = {**_COMMON, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_BLOOM = {**_COMMON, "hidden_size": 32, "n_layer": 2, "n_head": 4}
_MAMBA = {**_COMMON, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 4}


@dataclass(frozen=True, slots=True)
class Family:
    """How the tiny model of a family is made.

    Attributes:
        config: name of transformers' class, whose arguments are `sizes`.
        sizes: arguments.
        tokenizer: `json` writes tokenizer.json, `sentencepiece` tokenizer.model alone.
        weights: `pickle` writes two shards of pytorch_model.bin, which are to be prepared.
        without: fields that are taken out of config.json, as they are left out where this family is published.
    """

    config: str
    sizes: dict[str, Any]
    tokenizer: Literal["json", "sentencepiece"] = "json"
    weights: Literal["safetensors", "pickle"] = "safetensors"
    without: tuple[str, ...] = field(default=())


FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaConfig",
        {**_LLAMA, "rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": False},
        weights="pickle",
    ),
    "llama-tied": Family("LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}, tokenizer="sentencepiece"),
    "mistral": Family("MistralConfig", {**_LLAMA, "sliding_window": 256}),
    "mixtral": Family("MixtralConfig", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": Family("Qwen2Config", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen3": Family("Qwen3Config", {**_LLAMA, "head_dim": 8}),
    "qwen3-moe": Family(
        "Qwen3MoeConfig",
        {**_LLAMA, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "gemma2": Family("Gemma2Config", _GEMMA),
    "gemma3-text": Family("Gemma3TextConfig", _GEMMA3_TEXT),
    "gemma3": Family(
        "Gemma3Config",
        {
            "text_config": _GEMMA3_TEXT,
            "vision_config": _VISION,
            **_IMAGE_TOKENS,
            **{name: _COMMON[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        },
    ),
    "phi3": Family("Phi3Config", {**_LLAMA, "original_max_position_embeddings": 512}),
    "olmo2": Family("Olmo2Config", _LLAMA),
    "lfm2": Family("Lfm2Config", {**_LLAMA, "layer_types": ["conv", "full_attention"]}),
    "gpt-neox": Family(
        "GPTNeoXConfig",
        {name: size for name, size in _LLAMA.items() if name != "num_key_value_heads"},
        weights="pickle",
    ),
    "gpt2": Family("GPT2Config", _GPT2),
    "opt": Family(
        "OPTConfig",
        {
            **_COMMON,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
        },
    ),
    "bloom": Family("BloomConfig", _BLOOM),
    "starcoder2": Family("Starcoder2Config", _LLAMA),
    "mamba": Family("MambaConfig", _MAMBA),
    "falcon": Family(
        "FalconConfig",
        {**_COMMON, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        without=("max_position_embeddings",),
    ),
}


def make_family(name: str, folder: Path) -> Path:
    """Writes the tiny model of a family into `folder`, which is made, and gives it back.

    Raises:
        KeyError: there is no such family.
    """
    import torch
    import transformers

    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    write: Callable[[Path], None] = _write_sentencepiece if family.tokenizer == "sentencepiece" else _write_json
    write(folder)
    torch.manual_seed(0)
    make_model: Any = transformers.AutoModelForCausalLM  # without types
    model = make_model.from_config(getattr(transformers, family.config)(**family.sizes))
    model.save_pretrained(folder)
    if family.weights == "pickle":
        _write_pickles(folder, model)
    if family.without:
        file = folder / "config.json"
        config = {key: value for key, value in json.loads(file.read_text()).items() if key not in family.without}
        file.write_text(json.dumps(config, indent=1))
    return folder


def _texts() -> list[str]:
    return [alpaca_prompt(answer, answer) + answer for answer in ANSWERS] * 20


def _write_json(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_tokenizer_config(folder, "PreTrainedTokenizerFast")


def _write_sentencepiece(folder: Path) -> None:
    """Byte-fallback BPE as LLaMA's, in `tokenizer.model`; transformers makes its fast tokenizer of it."""
    import sentencepiece

    with (folder / "tokenizer.model").open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_texts()),
            model_writer=stream,
            model_type="bpe",
            vocab_size=VOCABULARY,
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            hard_vocab_limit=False,
            minloglevel=2,
        )
    _write_tokenizer_config(folder, "LlamaTokenizer")


def _write_tokenizer_config(folder: Path, kind: str) -> None:
    unknown, begin, end = SPECIAL
    config = {"tokenizer_class": kind, "unk_token": unknown, "bos_token": begin, "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 512}, indent=1))


def _write_pickles(folder: Path, model: Any) -> None:
    """Two shards and their index in place of the safetensors, as models of before 2023 are published."""
    import torch

    tensors = dict(model.state_dict())
    names = sorted(tensors)
    files = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    for number, file in enumerate(files):
        torch.save({each: tensors[each].clone() for each in names[number::2]}, folder / file)
    index = {"metadata": {}, "weight_map": {each: files[number % 2] for number, each in enumerate(names)}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for whole in folder.glob("*.safetensors*"):
        whole.unlink()
