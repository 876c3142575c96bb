"""Pictures as viewers show them: rotated by their EXIF orientation, transparent parts on white."""

from __future__ import annotations

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


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """The picture rotated by its EXIF orientation; unchanged where it has none. Unlike Pillow's `exif_transpose`, this does not
    write EXIF data back, which fails on some readable files."""
    transposition = TRANSPOSITIONS.get(image.getexif().get(ORIENTATION, 1))
    return image if transposition is None else image.transpose(transposition)


def on_white(image: Image.Image) -> Image.Image:
    """The picture upright, in RGB, transparent parts on white."""
    upright = apply_exif_orientation(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")
