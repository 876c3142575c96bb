"""Pictures as viewers show them: rotated by their EXIF orientation, transparent parts on white."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

# Exif 2.3, tag 274, and the transposition that each of its values asks for.
ORIENTATION = 274
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

GREY_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# Formats whose pictures of mode I hold 16 bits: values of PGM files are scaled to them when they are read.
FORMATS_OF_16_BITS = ("PNG", "PPM")
# What Pillow's decoders are known to raise on malformed files: of 12 formats damaged at random, and of damaged EXIF data.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnsupportedPixels(ValueError):
    """A picture whose pixels have no known white."""


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """The picture rotated by its EXIF orientation; unchanged where it has none. Unlike Pillow's `exif_transpose`, this does not
    write EXIF data back, which fails on some readable files."""
    transposition = TRANSPOSITIONS.get(image.getexif().get(ORIENTATION, 1))
    return image if transposition is None else image.transpose(transposition)


def on_white(image: Image.Image) -> Image.Image:
    """The picture upright, in RGB of 8 bits, transparent parts on white: the pixels that training, surveys and blind pairs see.

    16-bit grey is scaled by 1/257. Raises `UnsupportedPixels` for floats and for integers of 32 bits.
    """
    upright = apply_exif_orientation(image)
    if upright.mode in ("I", "F") or upright.mode in GREY_16_BITS:
        upright = _of_eight_bits(upright, image.format)
    if upright.mode == "La":  # Pillow converts it to LA only
        upright = upright.convert("LA")
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def _of_eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """Grey of 16 bits as grey of 8, with an opacity if a value of it is transparent. Pillow's `convert` would clip values at 255.

    `file_format` is that of the file: a transposed copy does not know it.
    """
    if image.mode == "F" or (image.mode == "I" and file_format not in FORMATS_OF_16_BITS):
        kind = "floats" if image.mode == "F" else "integers of 32 bits"
        raise UnsupportedPixels(f"its pixels are {kind} (mode {image.mode}), of which no value is known to be white; save it with 8 bits")
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))
