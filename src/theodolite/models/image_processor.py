"""Image processors: always in their Pillow form, so that numbers do not depend on whether torchvision is installed; their settings."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from typing import Any

import transformers


def on_pillow(image_processor: Any) -> Any:
    """An image processor with the same settings in the library's Pillow form; itself where it has that form, or there is none.

    The form on torchvision resizes otherwise: probabilities of answers differ by up to 0.0004.
    """
    if getattr(image_processor, "backend", "pil") != "torchvision":
        return image_processor
    kind = getattr(transformers, type(image_processor).__name__.removesuffix("Fast") + "Pil", None)
    if kind is None:
        return image_processor
    settings = {name: value for name, value in image_processor.to_dict().items() if name != "image_processor_type"}
    return kind.from_dict(settings)


def settings_hash(image_processor: Any) -> str:
    """SHA-256, in hex, of an image processor's settings by name, its class aside."""
    settings = {name: value for name, value in image_processor.to_dict().items() if name != "image_processor_type"}
    text = json.dumps(settings, sort_keys=True, default=lambda value: getattr(value, "__dict__", None) or type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()


def with_pixel_limits(image_processor: Any, family: str, min_pixels: int | None, max_pixels: int | None) -> Any | None:
    """A copy that gives the model at least and at most about so many pixels of a picture, by the family's own setting.

    Qwen-VL: the limits of width x height. InternVL: the numbers of tiles. Idefics3 and SmolVLM: the longest side, in whole tiles, of which
    the square is within the limit. None for other families, whose processors have no such setting.
    """
    limited = copy.deepcopy(image_processor)
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        size = dict(limited.size)
        smallest, largest = min_pixels or size["shortest_edge"], max_pixels or size["longest_edge"]
        # A limit that is given wins over a default on the other side of it.
        smallest, largest = (min(smallest, largest), largest) if max_pixels else (smallest, max(smallest, largest))
        limited.size = type(limited.size)(shortest_edge=smallest, longest_edge=largest)
    elif family == "internvl":
        tile = dict(limited.size)["height"] * dict(limited.size)["width"]
        most = max(1, max_pixels // tile) if max_pixels else limited.max_patches
        limited.min_patches = min(max(1, math.ceil(min_pixels / tile)), most) if min_pixels else min(limited.min_patches, most)
        limited.max_patches = most
    elif family in ("idefics3", "smolvlm"):
        tile, side = dict(limited.max_image_size)["longest_edge"], dict(limited.size)["longest_edge"]
        if min_pixels:
            side = max(side, math.ceil(math.sqrt(min_pixels) / tile) * tile)
        if max_pixels:
            side = min(side, max(1, math.isqrt(max_pixels) // tile) * tile)
        limited.size = type(limited.size)(longest_edge=side)
    else:
        return None
    return limited
