"""Tiny GGUF files of random weights, by the library of llama.cpp."""

from importlib import import_module
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS, EXPERTS = 64, 96, 2, 4, 2, 4
EXPERT_INNER = 768  # transformers does not read it from the file, and this is its default
BYTES = 256


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    special: tuple[str, ...] = ("<|begin|>", "<|endoftext|>", "<|im_end|>"),
    ids: dict[str, str] | None = None,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    without: str = "",
    tied: bool = False,
    rope_factors: Any = None,
) -> Path:
    """Write a model with a byte-level vocabulary.

    Args:
        path: of the file.
        architecture: in GGUF's words.
        special: the control tokens, behind the 256 bytes.
        ids: of the tokens that the file names: `eos`, `eot` and the like.
        kind: of the matrices; vectors are float32.
        without: a tensor to leave out.
        tied: the head is the embeddings.
        rope_factors: what the frequencies of the rotary embedding are divided by.
    """
    tokens = [*_byte_tokens(), *special, "ab"]
    writer = gguf.GGUFWriter(path, architecture)
    _write_facts(writer, architecture, len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * BYTES + [3] * len(special) + [1])
    writer.add_token_merges(["a b"])
    for key, token in (ids if ids is not None else {"bos": special[0], "eos": special[-1]}).items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", tokens.index(token))
    random = np.random.default_rng(0)
    for name, shape in _shapes(architecture, len(tokens), tied=tied).items():
        values = random.standard_normal(shape, dtype=np.float32)
        if name == without:
            continue
        if len(shape) == 1 or "ffn_gate_inp" in name:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_tokens() -> list[str]:
    """Return the characters that stand for bytes in the vocabularies of GPT-2 and its heirs."""
    library: Any = import_module("transformers.convert_slow_tokenizer")  # without types
    table: dict[int, str] = library.bytes_to_unicode()
    return [table[number] for number in range(BYTES)]


def _write_facts(writer: Any, architecture: str, tokens: int) -> None:
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(tokens)
    if architecture in {"qwen3", "qwen3moe", "gemma2"}:
        writer.add_key_length(_head_width(architecture))
        writer.add_value_length(_head_width(architecture))
    if architecture == "qwen3moe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(EXPERT_INNER)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
        writer.add_sliding_window(128)


def _head_width(architecture: str) -> int:
    """Return the width of a head; that of Qwen3 is not read from the file either."""
    return {"qwen3": 128}.get(architecture, HIDDEN // HEADS)


def _shapes(architecture: str, tokens: int, *, tied: bool) -> dict[str, tuple[int, ...]]:
    head = _head_width(architecture)
    width, queries = head * KEY_HEADS, head * HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (tokens, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not tied and architecture != "gemma2":
        shapes["output.weight"] = (tokens, HIDDEN)
    for layer in range(LAYERS):
        part: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (HIDDEN,), "ffn_norm.weight": (HIDDEN,), "attn_q.weight": (queries, HIDDEN),
            "attn_k.weight": (width, HIDDEN), "attn_v.weight": (width, HIDDEN), "attn_output.weight": (HIDDEN, queries),
        }  # fmt: skip
        if architecture == "qwen2":
            part |= {"attn_q.bias": (HIDDEN,), "attn_k.bias": (width,), "attn_v.bias": (width,)}
        if architecture in {"qwen3", "qwen3moe"}:
            part |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        if architecture == "gemma2":
            part |= {"post_attention_norm.weight": (HIDDEN,), "post_ffw_norm.weight": (HIDDEN,)}
        if architecture == "qwen3moe":
            part |= {
                "ffn_gate_inp.weight": (EXPERTS, HIDDEN), "ffn_gate_exps.weight": (EXPERTS, EXPERT_INNER, HIDDEN),
                "ffn_down_exps.weight": (EXPERTS, HIDDEN, EXPERT_INNER),
                "ffn_up_exps.weight": (EXPERTS, EXPERT_INNER, HIDDEN),
            }  # fmt: skip
        else:
            part |= {
                "ffn_gate.weight": (INNER, HIDDEN),
                "ffn_up.weight": (INNER, HIDDEN),
                "ffn_down.weight": (HIDDEN, INNER),
            }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in part.items()}
    return shapes
