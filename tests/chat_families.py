"""Tokenizers and chat templates of the shapes that the known model families have, small enough to make in a test.

The templates are written here; each copies only the structure of its family: which tokens stand where, what is trimmed,
what is refused.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_ENGLISH = (
    "a the of and in to river stone bridge colour number name list count water boils answer question why how one two "
    "three green blue red user assistant system model first then last yes no some words about it sum sort write say"
)
WORDS = tuple(_ENGLISH.split())
_CHINESE = "数到三 写一首诗 水为什么会沸腾"
_TEXTS = [*(" ".join(random.Random(seed).choices(WORDS, k=30)) for seed in range(300)), *[_CHINESE] * 10]


@dataclass(frozen=True)
class Family:
    """A tokenizer with a chat template, and what is learnt of an answer by it.

    Attributes:
        before: what the template writes between the generation prompt and an answer.
        after: what it writes behind an answer, up to its end of turn.
        strips: whether it takes the spaces off an answer's ends.
        system: whether it takes a system turn.
        end_of_turn: the token that ends a turn.
    """

    tokenizer: Any
    before: str
    after: str
    strips: bool
    system: bool
    end_of_turn: str


def sentencepiece_like(special: list[str], *, prefix: bool = True, bos: str = "", eos: str = "") -> Tokenizer:
    """A byte-fallback BPE as of LLaMA, Mistral and Gemma; `bos` and `eos` are put around every text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    in_bytes = [f"<0x{each:02X}>" for each in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*special, *in_bytes], show_progress=False)
    tokenizer.train_from_iterator(_TEXTS, trainer)
    told = json.loads(tokenizer.to_str())
    told["added_tokens"] = [each for each in told["added_tokens"] if not each["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(told))
    if bos or eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A {eos}".strip(),
            pair=f"{bos} $A $B".strip(),
            special_tokens=[(each, tokenizer.token_to_id(each)) for each in (bos, eos) if each],
        )
    return tokenizer


def byte_level(special: list[str]) -> Tokenizer:
    """A byte-level BPE as of GPT-2, Qwen and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _TEXTS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in special])
    return tokenizer


def _loop(body: str) -> str:
    return "{% for m in messages %}" + body + "{% endfor %}"


_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant take turns') }}"
    "{% endif %}"
)
_CHATML = _loop("{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}")
_ASK_CHATML = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
TEMPLATES = {
    "llama2": (
        "{% set first = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
        "{% set turns = messages[1:] if first else messages %}"
        "{% for m in turns %}"
        + _ALTERNATE
        + "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + ('<<SYS>>\\n' + first + '\\n<</SYS>>\\n\\n' "
        "if loop.first and first else '') + m['content'].strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "mistral": (
        "{{ bos_token }}"
        + _loop(
            _ALTERNATE + "{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' "
            "else ' ' + m['content'] + eos_token }}"
        )
    ),
    "mistral-v0.1": (
        "{{ bos_token }}"
        + _loop(
            _ALTERNATE + "{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' "
            "else m['content'] + eos_token + ' ' }}"
        )
    ),
    "gemma": (
        "{{ bos_token }}"
        + _loop(
            _ALTERNATE + "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' "
            "+ m['content'] | trim + '<end_of_turn>\\n' }}"
        )
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "phi3": (
        _loop("{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}")
        + "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "chatml": _CHATML + _ASK_CHATML,
    "qwen2.5": (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nHelp.<|im_end|>\\n' }}{% endif %}"
        + _CHATML
        + _ASK_CHATML
    ),
    "llama3": (
        _loop(
            "{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
            "+ m['content'] | trim + '<|eot_id|>' }}"
        )
        + "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "zephyr": (
        _loop("{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}")
        + "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    "vicuna": (
        _loop(
            "{% if m['role'] == 'system' %}{{ m['content'] + ' ' }}"
            "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
            "{% else %}{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}"
        )
        + "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
    # The thoughts before an answer are shown in the last turn only.
    "think": (
        _loop(
            "{% set c = m['content'] if loop.last else m['content'].split('</think>')[-1].lstrip('\\n') %}"
            "{{ '<|im_start|>' + m['role'] + '\\n' + c + '<|im_end|>\\n' }}"
        )
        + _ASK_CHATML
    ),
    # The generation prompt opens the thoughts; no answer shows them.
    "open-think": (
        _loop(
            "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'].split('</think>')[-1].lstrip('\\n') "
            "+ '<|im_end|>\\n' }}"
        )
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    ),
    # A system turn is passed over without a word.
    "no-system": (
        _loop("{% if m['role'] != 'system' %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endif %}")
        + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
}
_BASIC = ["<unk>", "<s>", "</s>"]
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
_PHI3 = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"]
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# backend, special tokens, bos, eos
_TOKENIZERS = {
    "llama": (sentencepiece_like, _BASIC, "<s>", "</s>"),
    "gemma": (sentencepiece_like, _GEMMA, "<bos>", "<eos>"),
    "phi3": (sentencepiece_like, _PHI3, "<s>", "<|endoftext|>"),
    "qwen": (byte_level, _QWEN, "<|im_start|>", "<|im_end|>"),
    "qwen-base": (byte_level, _QWEN, "<|im_start|>", "<|endoftext|>"),
    "llama3": (byte_level, _LLAMA3, "<|begin_of_text|>", "<|end_of_text|>"),
}
# tokenizer, template, before, after, strips, system, end of turn
_FAMILIES: dict[str, tuple[str, str, str, str, bool, bool, str]] = {
    "llama2": ("llama", "llama2", " ", " </s>", True, True, "</s>"),
    "mistral": ("llama", "mistral", " ", "</s>", False, False, "</s>"),
    "mistral-v0.1": ("llama", "mistral-v0.1", "", "</s>", False, False, "</s>"),
    "vicuna": ("llama", "vicuna", " ", "</s>", False, True, "</s>"),
    "zephyr": ("llama", "zephyr", "", "</s>", False, True, "</s>"),
    "gemma": ("gemma", "gemma", "", "<end_of_turn>", True, False, "<end_of_turn>"),
    "phi3": ("phi3", "phi3", "", "<|end|>", False, True, "<|end|>"),
    "qwen2.5": ("qwen", "qwen2.5", "", "<|im_end|>", False, True, "<|im_end|>"),
    "qwen2.5-base": ("qwen-base", "qwen2.5", "", "<|im_end|>", False, True, "<|im_end|>"),
    "qwen3": ("qwen", "chatml", "", "<|im_end|>", False, True, "<|im_end|>"),
    "llama3": ("llama3", "llama3", "", "<|eot_id|>", True, True, "<|eot_id|>"),
    "think": ("qwen", "think", "", "<|im_end|>", False, True, "<|im_end|>"),
    "open-think": ("qwen", "open-think", "", "<|im_end|>", False, True, "<|im_end|>"),
    "no-system": ("llama", "no-system", "", "</s>", False, False, "</s>"),
}
FAMILIES = tuple(_FAMILIES)


def make_family(name: str) -> Family:
    """The family of a name in `FAMILIES`."""
    kind, template, before, after, strips, system, end_of_turn = _FAMILIES[name]
    make, special, bos, eos = _TOKENIZERS[kind]
    backend = make(special, **({"prefix": kind != "gemma"} if make is sentencepiece_like else {}))
    tokenizer = make_tokenizer(backend, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = TEMPLATES[template]
    return Family(tokenizer, before, after, strips, system, end_of_turn)


def make_tokenizer(backend: Tokenizer, **names: str) -> Any:
    """A tokenizer of transformers; `names` are those of its special tokens, such as `eos_token`."""
    make: Any = PreTrainedTokenizerFast  # without types
    return make(tokenizer_object=backend, **names)


def write_llama(tokenizer: Any, folder: Path) -> Path:
    """Writes a LLaMA of two narrow layers with random weights and this tokenizer, whose `eos_token` it is to end by."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    make: Any = LlamaForCausalLM  # without types
    make(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
