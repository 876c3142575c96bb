"""Conversations, pictures and a chat template for tests of training data."""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

IMAGE = {"type": "image"}
# As ChatML: role and line break, content in order, end token and line break; the prompt ends in the assistant's role.
LINES = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' }}{{ '\\n' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "</s>{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<assistant>{{ '\\n' }}{% endif %}"
)


def says(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def bytes_tokenizer() -> Any:
    """Byte-level BPE with a token of two line breaks, as GPT-2's and Qwen's have."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    special = ["<user>", "<assistant>", "</s>", "<image>", "<pad>"]
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=600)
    own.train_from_iterator(["what colour\n\n\n is it...\n\n", "yes\n\n red\n\n\n"] * 20, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>", pad_token="<pad>", additional_special_tokens=special)
