"""Picture files of every mode and format that is read, each with the pixels that it must be decoded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64
COLOUR = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
RAMP = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
HALF = np.zeros((SIDE, SIDE), dtype=np.uint8)
HALF[: SIDE // 2] = 255  # opaque above, clear below


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def under(opaque: np.ndarray) -> np.ndarray:
    """The pixels where `HALF` is opaque, white elsewhere."""
    return np.where(HALF[..., None] > 0, opaque, 255).astype(np.uint8)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def with_alpha(mode: str) -> Image.Image:
    image = Image.fromarray(COLOUR).convert(mode)
    image.putalpha(Image.fromarray(HALF))
    return image


def palette() -> Image.Image:
    """Colour 1 of a palette is red and transparent, colour 0 blue."""
    image = Image.fromarray((HALF == 0).astype(np.uint8))
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image


TWO_COLOURS = np.where(HALF[..., None] > 0, [0, 0, 255], [255, 0, 0])
SAVED: dict[str, tuple[str, Callable[[], Image.Image], dict[str, Any], Any]] = {
    "1 bit": ("png", lambda: Image.fromarray(HALF).convert("1"), {}, grey(HALF)),
    "L": ("png", lambda: Image.fromarray(COLOUR[..., 0]), {}, grey(COLOUR[..., 0])),
    "L, a value transparent": ("png", lambda: Image.fromarray(HALF), {"transparency": 0}, under(np.full_like(COLOUR, 255))),
    "LA": ("png", lambda: with_alpha("L"), {}, under(np.asarray(Image.fromarray(COLOUR).convert("L").convert("RGB")))),
    "P": ("png", palette, {}, TWO_COLOURS),
    "P, a colour transparent": ("png", palette, {"transparency": 1}, under(np.full_like(COLOUR, (0, 0, 255)))),
    "P of a GIF, a colour transparent": ("gif", palette, {"transparency": 1}, under(np.full_like(COLOUR, (0, 0, 255)))),
    "RGBA": ("png", lambda: with_alpha("RGB"), {}, under(COLOUR)),
    "CMYK": ("tif", lambda: Image.fromarray(COLOUR).convert("CMYK"), {}, COLOUR),
    "16 bits, PNG": ("png", lambda: Image.fromarray(RAMP.astype(np.uint16)), {}, grey(np.round(RAMP.astype(np.uint16) / 257))),
    "16 bits, TIFF": ("tif", lambda: Image.fromarray(RAMP.astype(np.uint16)), {}, grey(np.round(RAMP.astype(np.uint16) / 257))),
    "16 bits, big-endian": ("tif", lambda: Image.fromarray(RAMP.astype(">u2")), {}, grey(np.round(RAMP.astype(np.uint16) / 257))),
    "16 bits, a value transparent": (
        "png",
        lambda: Image.fromarray(np.where(HALF > 0, 256 * 7, 900).astype(np.uint16)),
        {"transparency": 900},
        under(np.full_like(COLOUR, 7)),
    ),
    "turned": ("png", lambda: Image.fromarray(COLOUR), {"exif": turned()}, np.rot90(COLOUR, -1)),
    "16 bits, turned": (
        "png",
        lambda: Image.fromarray(RAMP.astype(np.uint16)),
        {"exif": turned()},
        np.rot90(grey(np.round(RAMP.astype(np.uint16) / 257)), -1),
    ),
    "floats from 0 to 1": ("tif", lambda: Image.fromarray((RAMP / 65535).astype(np.float32)), {}, grey(np.rint(RAMP / 257))),
    "P of a GIF, animated": ("gif", palette, {"save_all": True, "append_images": [Image.new("P", (SIDE, SIDE))]}, TWO_COLOURS),
    "APNG": ("png", lambda: Image.fromarray(COLOUR), {"save_all": True, "append_images": [Image.new("RGB", (SIDE, SIDE))]}, COLOUR),
    "TIFF of two pages": ("tif", lambda: Image.fromarray(COLOUR), {"save_all": True, "append_images": [Image.new("L", (9, 9))]}, COLOUR),
    "damaged metadata": ("png", lambda: Image.fromarray(COLOUR), {"exif": b"Exif\0\0II+\0\x08\0\0\0\0\0"}, COLOUR),
}
