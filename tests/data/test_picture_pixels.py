"""Training, surveys and blind pairs see the same pixels of a picture file, whatever its mode, or all refuse it by name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.saved_pictures import COLOUR, RAMP, SAVED, SIDE, grey
from theodolite.blind_pairs.pictures import open_stored_picture
from theodolite.data.drops import Unfit
from theodolite.data.samples import open_picture
from theodolite.worlds.decoding import DAMAGED_METADATA, FIRST_FRAME, UnsupportedPixels, decode
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import inspect, render_manifest


@pytest.mark.parametrize("name", SAVED)
def test_training_surveys_and_blind_pairs_see_these_pixels(tmp_path: Path, name: str) -> None:
    suffix, make, options, expected = SAVED[name]
    file = tmp_path / f"a.{suffix}"
    make().save(file, **options)
    doors = {
        "training": np.asarray(open_picture(file).image),
        "training from bytes": np.asarray(open_picture(file.read_bytes()).image),
        "survey": render_manifest(tmp_path, [file.name], SIDE)[0],
        "blind pairs": np.asarray(open_stored_picture(file)),
    }
    for door, pixels in doors.items():
        assert np.array_equal(pixels, expected), door


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), (RAMP / 65535 - 0.5).astype(np.float32), RAMP.astype(np.int32)])
def test_pixels_without_a_known_white_are_refused_by_name_everywhere(tmp_path: Path, values: np.ndarray) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(values).save(file)
    with pytest.raises(Unfit, match=r"^unreadable: .*a\.tif \(UnsupportedPixels: its pixels are (floats|integers).* \(mode [FI]\)"):
        open_picture(file)
    with pytest.raises(RowFault, match=r"pixels of mode I|its pixels are floats"):
        open_stored_picture(file)
    with pytest.raises(UnsupportedPixels):
        decode(Image.fromarray(values))


def test_a_pgm_of_any_depth_is_scaled_to_its_largest_value() -> None:
    values = np.round(RAMP / 65535 * 1023).astype(">u2")
    pixels = np.asarray(open_picture(b"P5 %d %d 1023\n" % (SIDE, SIDE) + values.tobytes()).image)
    assert np.array_equal(pixels, grey(np.round(values / 1023 * 255)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_mode_of_eight_bits_of_an_open_picture_is_read(mode: str) -> None:
    image = Image.new("LA" if mode == "La" else "RGB", (4, 4), "white").convert(mode)
    assert np.asarray(open_picture(image).image).min() >= 254


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("RGBA", ()),
        ("turned", ()),
        ("P of a GIF, animated", (FIRST_FRAME,)),
        ("APNG", (FIRST_FRAME,)),
        ("TIFF of two pages", (FIRST_FRAME,)),
        ("damaged metadata", (DAMAGED_METADATA,)),
    ],
)
def test_what_a_reader_should_know_of_a_picture_is_noted(tmp_path: Path, name: str, notes: tuple[str, ...]) -> None:
    suffix, make, options, _ = SAVED[name]
    make().save(tmp_path / f"a.{suffix}", **options)
    assert inspect(tmp_path, f"a.{suffix}").notes == notes


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_at_a_reduced_scale_where_the_asked_size_is_far_smaller(orientation: int) -> None:
    exif, written = Image.Exif(), BytesIO()
    exif[274] = orientation
    Image.fromarray(COLOUR).resize((800, 600), Image.Resampling.BICUBIC).save(written, "JPEG", exif=exif)
    turn = -1 if orientation == 6 else 1
    asked = {}
    for smallest in (None, (400, 300)[::turn], (100, 75)[::turn], (10, 10)):
        with Image.open(written) as image:
            asked[smallest] = decode(image, smallest)
    assert {picture.facts.width for picture in asked.values()} == {(800, 600)[::turn][0]}
    sizes = [picture.image.size[::turn] for picture in asked.values()]
    assert sizes == [(800, 600), (800, 600), (200, 150), (100, 75)]
    full, reduced = (np.asarray(picture.image.resize((32, 32), Image.Resampling.BOX), dtype=float) for picture in list(asked.values())[::2])
    assert np.abs(full - reduced).mean() < 6  # of noise, whose neighbouring pixels differ by up to 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("length", range(6, 20))
def test_exif_data_cut_anywhere_costs_nothing_but_the_rotation(kind: str, length: int) -> None:
    """`struct.error` among others; the first is the header of a BigTIFF."""
    for start in (b"Exif\0\0II+\0\x08\0\0\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3"):
        written = BytesIO()
        try:
            Image.new("RGB", (60, 40), "red").save(written, kind, exif=start[:length])
        except (ValueError, SyntaxError, OSError, TypeError):
            continue  # Pillow does not write it
        assert open_picture(written.getvalue()).image.size == (60, 40)
