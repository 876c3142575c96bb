"""Chat messages for endpoints: a prompt about one picture, and estimates of its tokens."""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Rules of thumb: characters of English per token, and the side in pixels of a hosted model's picture tiles.
LETTERS_A_TOKEN = 4
TILE = 512


def messages_of(prompt: str, picture: UInt8[np.ndarray, "height width 3"] | None) -> list[dict[str, Any]]:
    """The chat messages of a prompt and its picture as a PNG data URL; None: text alone."""
    text = {"type": "text", "text": prompt}
    if picture is None:
        return [{"role": "user", "content": [text]}]
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": _data_url(picture)}}, text]}]


def picture_digest(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    """SHA-256 of a picture's size and pixels, independent of the PNG encoder."""
    return hashlib.sha256(f"{picture.shape}\0".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def text_tokens(text: str) -> int:
    """Estimated tokens of a text: one for every four characters."""
    return -(-len(text) // LETTERS_A_TOKEN)


def picture_tokens(height: int, width: int) -> int:
    """Estimated tokens of a picture: 85, and 170 for every tile of 512 x 512 pixels that it touches."""
    return 85 + 170 * -(-height // TILE) * -(-width // TILE)


def _data_url(picture: UInt8[np.ndarray, "height width 3"]) -> str:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, format="PNG")
    return f"data:image/png;base64,{b64encode(target.getvalue()).decode()}"
