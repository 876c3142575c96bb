"""Conversations, pictures and a chat template for tests of training data."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

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
