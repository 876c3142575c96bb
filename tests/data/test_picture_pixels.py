"""Training, surveys and blind pairs see the same pixels of a picture file, whatever its mode, or all refuse it by name."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from theodolite.blind_pairs.pictures import open_stored_picture
from theodolite.data.drops import Unfit
from theodolite.data.samples import open_picture
from theodolite.worlds.exif_orientation import UnsupportedPixels, on_white
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import render_manifest

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


SAVED: dict[str, tuple[str, Callable[[], Image.Image], dict[str, Any], Any]] = {
    "1 bit": ("png", lambda: Image.fromarray(HALF).convert("1"), {}, grey(HALF)),
    "L": ("png", lambda: Image.fromarray(COLOUR[..., 0]), {}, grey(COLOUR[..., 0])),
    "L, a value transparent": ("png", lambda: Image.fromarray(HALF), {"transparency": 0}, under(np.full_like(COLOUR, 255))),
    "LA": ("png", lambda: with_alpha("L"), {}, under(np.asarray(Image.fromarray(COLOUR).convert("L").convert("RGB")))),
    "P": ("png", palette, {}, np.where(HALF[..., None] > 0, [0, 0, 255], [255, 0, 0])),
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
}


@pytest.mark.parametrize("name", SAVED)
def test_training_surveys_and_blind_pairs_see_these_pixels(tmp_path: Path, name: str) -> None:
    suffix, make, options, expected = SAVED[name]
    file = tmp_path / f"a.{suffix}"
    make().save(file, **options)
    doors = {
        "training": np.asarray(open_picture(file)),
        "training from bytes": np.asarray(open_picture(file.read_bytes())),
        "survey": render_manifest(tmp_path, [file.name], SIDE)[0],
        "blind pairs": np.asarray(open_stored_picture(file)),
    }
    for door, pixels in doors.items():
        assert np.array_equal(pixels, expected), door


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), (RAMP / 65535).astype(np.float32), RAMP.astype(np.int32)])
def test_pixels_without_a_known_white_are_refused_by_name_everywhere(tmp_path: Path, values: np.ndarray) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(values).save(file)
    with pytest.raises(Unfit, match=r"^unreadable: .*a\.tif \(UnsupportedPixels: its pixels are (floats|integers).* \(mode [FI]\)"):
        open_picture(file)
    with pytest.raises(RowFault, match=r"pixels of mode [FI]"):
        open_stored_picture(file)
    with pytest.raises(UnsupportedPixels):
        on_white(Image.fromarray(values))


def test_a_pgm_of_any_depth_is_scaled_to_its_largest_value() -> None:
    values = np.round(RAMP / 65535 * 1023).astype(">u2")
    pixels = np.asarray(open_picture(b"P5 %d %d 1023\n" % (SIDE, SIDE) + values.tobytes()))
    assert np.array_equal(pixels, grey(np.round(values / 1023 * 255)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_mode_of_eight_bits_of_an_open_picture_is_read(mode: str) -> None:
    image = Image.new("LA" if mode == "La" else "RGB", (4, 4), "white").convert(mode)
    assert np.asarray(open_picture(image)).min() >= 254


def test_of_an_animation_training_sees_the_first_frame_and_surveys_refuse_it_by_name(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.gif")), np.full((4, 4, 3), (255, 0, 0)))
    with pytest.raises(RowFault, match="several frames"):
        open_stored_picture(tmp_path / "a.gif")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("length", range(6, 20))
def test_exif_data_cut_anywhere_costs_its_picture_at_most(kind: str, length: int) -> None:
    """`struct.error` among others; the first is the header of a BigTIFF."""
    for start in (b"Exif\0\0II+\0\x08\0\0\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3"):
        written = BytesIO()
        try:
            Image.new("RGB", (60, 40), "red").save(written, kind, exif=start[:length])
        except (ValueError, SyntaxError, OSError, TypeError):
            continue  # Pillow does not write it
        try:
            assert open_picture(written.getvalue()).size == (60, 40)
        except Unfit as reason:
            assert str(reason).startswith("unreadable: a picture (")
