"""Target: pictures of nine formats, as manifests, training and exports of pairs read them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from helpers.malformed.byte_cases import damaged
from helpers.malformed.target import Prepare, Ready
from theodolite.data.drops import Unfit
from theodolite.data.samples import open_picture
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import inspect, open_file

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA")
MODES = ("RGB", "L", "P", "RGBA", "I;16", "1", "CMYK", "F", "LA")


def saved() -> list[bytes]:
    """A small picture in every format and mode that goes together, with EXIF data, text, several frames, and compression where there is."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    files = []
    for form in FORMATS:
        for mode in MODES:
            picture = Image.new("I;16", (23, 19), 700) if mode == "I;16" else rgb.convert(mode)
            options: dict[str, object] = {"exif": exif} if form in ("PNG", "JPEG", "WEBP") else {}
            if form in ("GIF", "TIFF", "WEBP", "PNG") and mode in ("RGB", "L", "P"):
                options |= {"save_all": True, "append_images": [picture.rotate(90)]}
            if form == "TIFF" and mode == "RGB":
                options["compression"] = "tiff_deflate"
            target = io.BytesIO()
            try:
                picture.save(target, form, **options)
            except (OSError, ValueError, KeyError):
                continue
            files.append(target.getvalue())
    return files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@st.composite
def bombs(draw: st.DrawFn) -> bytes:
    """PNGs that claim or hold more than they should, in their sizes, pixels, texts and profiles."""
    side = draw(st.sampled_from((1, 16, 8000, 16_384, 20_000, 2**31 - 1, 2**32 - 1)))
    other = draw(st.sampled_from((1, 16, side)))
    depth, colour = draw(st.sampled_from((1, 8, 16, 3, 255))), draw(st.sampled_from((0, 2, 3, 6, 7)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, other, depth, colour, 0, 0, draw(st.sampled_from((0, 1, 9)))))
    inflated = zlib.compress(bytes(draw(st.sampled_from((0, 100, 2**20, 2**23)))), 9)
    extra = draw(
        st.sampled_from(
            (b"", chunk(b"zTXt", b"a\0\0" + inflated), chunk(b"iTXt", b"a\0\1\0\0\0" + inflated), chunk(b"iCCP", b"a\0\0" + inflated))
        )
    )
    return b"\x89PNG\r\n\x1a\n" + header + extra * draw(st.sampled_from((0, 1, 30))) + chunk(b"IDAT", inflated) + chunk(b"IEND", b"")


def pictures(folder: Path) -> Ready:
    path = folder / "x"

    def consume(payload: bytes) -> None:
        path.write_bytes(payload)
        with suppress(Unfit):
            open_picture(path)
        inspect(folder, "x")
        with strict_pillow():  # what was checked can be opened
            open_file(folder, "x", (8, 8))

    files = damaged(saved(), header=200)
    return Ready(st.one_of(files, files, files, bombs()), consume, (RowFault,))


TARGETS: Mapping[str, Prepare] = {"pictures": pictures}
