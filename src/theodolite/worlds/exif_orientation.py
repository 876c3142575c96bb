"""Pictures as they are meant to be seen: turned as their EXIF data say, on white where they are transparent."""

from __future__ import annotations

from PIL import Image

# Exif 2.3, tag 274, and how a viewer turns such a picture.
ORIENTATION = 274
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """The picture as a viewer turns it; itself where it says nothing. Unlike Pillow's own function this writes no EXIF data back,
    which fails on some that can be read."""
    turn = TURNED.get(image.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def on_white(image: Image.Image) -> Image.Image:
    """The picture upright, in RGB, what is transparent in it on white."""
    found = apply_exif_orientation(image)
    if found.has_transparency_data:
        found = found.convert("RGBA")
        found = Image.alpha_composite(Image.new("RGBA", found.size, "white"), found)
    return found.convert("RGB")
