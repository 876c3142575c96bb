"""The one decoder of picture files, for training, surveys, blind pairs and endpoints: upright RGB of 8 bits, transparent parts on white."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageFile

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
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height

GREY_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# Formats whose pictures of mode I hold 16 bits: values of PGM files are scaled to them when they are read.
FORMATS_OF_16_BITS = ("PNG", "PPM")
JPEGS = ("JPEG", "MPO")  # phones write photographs as MPO: a JPEG followed by a smaller copy
# What Pillow's decoders are known to raise on malformed files: of 12 formats damaged at random, and of damaged EXIF data.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

FIRST_FRAME = "the first of several frames"
DAMAGED_METADATA = "damaged metadata, so without its rotation"
NOTES = (FIRST_FRAME, DAMAGED_METADATA)
# A JPEG is decoded at a reduced scale only if that leaves this many times the asked size, so that the resize after it decides the pixels.
DRAFT_MARGIN = 2


class UnsupportedPixels(ValueError):
    """A picture whose pixels have no known white."""


@dataclass(frozen=True)
class PictureFacts:
    """Width and height of a picture in its file, upright; its EXIF orientation; notes about it, of `NOTES`."""

    width: int
    height: int
    orientation: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """A picture upright in RGB of 8 bits, and the facts of its file."""

    image: Image.Image
    facts: PictureFacts


def decode(image: Image.Image, smallest: tuple[int, int] | None = None) -> DecodedPicture:
    """An opened picture upright in RGB of 8 bits, transparent parts on white; of an animation the first frame.

    16-bit grey is scaled by 1/257, floats from 0 to 1 by 255. Damaged EXIF data costs the rotation only. `smallest` (width, height)
    allows a JPEG to be decoded at a reduced scale of at least `DRAFT_MARGIN` times that size. Raises `UnsupportedPixels` for integers of
    32 bits and other floats, and one of `UNDECODABLE` for a damaged file.
    """
    facts = facts_of(image)
    if smallest is not None and image.format in JPEGS:
        across, down = smallest[::-1] if facts.orientation in SIDEWAYS else smallest
        image.draft(None, (DRAFT_MARGIN * across, DRAFT_MARGIN * down))
    # Pillow's own `exif_transpose` writes EXIF data back, which fails on some readable files.
    upright = image.transpose(TRANSPOSITIONS[facts.orientation]) if facts.orientation in TRANSPOSITIONS else image
    return DecodedPicture(_rgb(upright, image.format), facts)


def decode_file(file: IO[bytes], formats: tuple[str, ...] | None = None, smallest: tuple[int, int] | None = None) -> DecodedPicture:
    """The picture in an open file of one of Pillow's `formats` (None: any); see `decode`. Call it within `strict_pillow`."""
    with Image.open(file, formats=formats) as image:
        return decode(image, smallest)


def facts_of(image: Image.Image) -> PictureFacts:
    """The facts of an opened picture; loads its pixels, except those of a JPEG."""
    notes = (FIRST_FRAME,) if _has_frames(image) else ()
    if image.format not in JPEGS:
        image.load()  # some formats read their metadata behind the pixels: damaged pixels are no damaged metadata
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except UNDECODABLE:
        orientation, notes = 1, (*notes, DAMAGED_METADATA)
    orientation = orientation if orientation in TRANSPOSITIONS else 1
    width, height = image.size[::-1] if orientation in SIDEWAYS else image.size
    return PictureFacts(width, height, orientation, notes)


def _has_frames(image: Image.Image) -> bool:
    """Whether a file holds several frames or pages, other than a JPEG and its smaller copy."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except UNDECODABLE:  # a damaged second frame: the first may be whole
        return True


def _rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode in GREY_16_BITS:
        image = _of_eight_bits(image, file_format)
    if image.mode == "La":  # Pillow converts it to LA only
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _of_eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """Grey of 16 bits or of floats as grey of 8, with an opacity if a value of it is transparent. Pillow's `convert` would clip at 255.

    `file_format` is that of the file: a transposed copy does not know it.
    """
    if image.mode == "F":
        return _of_floats(image)
    if image.mode == "I" and file_format not in FORMATS_OF_16_BITS:
        raise UnsupportedPixels("its pixels are integers of 32 bits (mode I), of which no value is known to be white; save it with 8 bits")
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _of_floats(image: Image.Image) -> Image.Image:
    """Floats from 0 (black) to 1 (white), the convention of scientific pictures, as grey of 8 bits."""
    values = np.asarray(image)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise UnsupportedPixels(
            f"its pixels are floats (mode F) from {values.min():g} to {values.max():g}, of which no value is known to be white; scale "
            "them to 0 to 1, or save it with 8 bits"
        )
    return Image.fromarray(np.rint(values.astype(np.float64) * 255).astype(np.uint8))


_STRICT = threading.Lock()
_strict_depth = 0


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Context in which Pillow refuses truncated files, whatever this process has set, and gives no warnings about unusual ones.

    Both are settings of the process, so threads that decode need an outer context in the thread that started them; theirs does nothing.
    """
    global _strict_depth
    with _STRICT:
        _strict_depth += 1
        is_outermost = _strict_depth == 1
    try:
        if is_outermost:
            truncated, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", module=r"PIL\.")
                    yield
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = truncated
        else:
            yield
    finally:
        with _STRICT:
            _strict_depth -= 1
