"""Tiny vision towers and language models on disk, to be joined."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

TEMPLATE = "{% for message in messages %}{{ message['role'] + ' : ' + message['content'] + ' </s> ' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TEXT = {**{key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}, "num_hidden_layers": 1}


def save_tower(folder: Path, kind: str) -> Path:
    config, model = (hf.CLIPConfig, hf.CLIPModel) if kind == "clip" else (hf.SiglipConfig, hf.SiglipModel)
    text = {**TEXT, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model(config(text_config=text, vision_config=VISION)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = (
        hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size) if kind == "clip" else hf.SiglipImageProcessorPil(size=size)
    )
    processor.save_pretrained(folder)
    return folder


WORDS = ("<unk>", "</s>", "user", "assistant", ":", "what", "is", "it", "round", "two")
LLAMA = hf.LlamaConfig(**TEXT, num_key_value_heads=1, bos_token_id=None, eos_token_id=1, tie_word_embeddings=False)


def save_language_model(
    folder: Path, template: str | None = TEMPLATE, config: hf.PreTrainedConfig = LLAMA, words: tuple[str, ...] = WORDS
) -> Path:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    config = copy.deepcopy(config)
    config.vocab_size = len(words)
    torch.manual_seed(3)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
