"""A tiny language model as a GGUF file of the packed kind."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, INNER, LAYERS, HEADS = 64, 96, 2, 4
PLAIN = ["w", "0", "1", "w0", "w1", *(f"x{number}" for number in range(15))]
WORDS = ["<unk>", "<|im_start|>", "<|im_end|>", *PLAIN]
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"


def shapes() -> dict[str, tuple[int, ...]]:
    by_name: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(WORDS), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        by_name |= {f"{block}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        by_name |= {f"{block}ffn_{name}.weight": (INNER, WIDTH) for name in ("gate", "up")}
        by_name |= {f"{block}ffn_down.weight": (WIDTH, INNER), f"{block}attn_norm.weight": (WIDTH,), f"{block}ffn_norm.weight": (WIDTH,)}
    return by_name


def write(path: Path, architecture: str = "llama") -> dict[str, np.ndarray]:
    """A GGUF file with matrices packed in 4 bits, and what unpacking them gives."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * len(PLAIN))
    writer.add_token_merges(["w 0", "w 1"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    rng, unpacked = np.random.default_rng(0), {}
    for name, shape in shapes().items():
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
            unpacked[name] = values
        else:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q4_1)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
            unpacked[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked
