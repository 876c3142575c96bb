"""Checks and rendering of untrusted pictures: only from their folder, sizes checked in headers first, then decoded once."""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PureWindowsPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import (
    GREY_16_BITS,
    JPEGS,
    UNDECODABLE,
    DecodedPicture,
    UnsupportedPixels,
    decode,
    decode_file,
    facts_of,
    strict_pillow,
)
from theodolite.worlds.manifest.faults import RowFault

MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000  # 256 MB at 4 bytes a pixel, which bounds the memory of a check
MAX_BYTES = 256 * 2**20
MAX_CHUNK = 2**20  # bytes of a PNG's text or colour profile, stored and inflated
GROUND = (128, 128, 128)  # colour of the padding of a picture that is not square
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Of 8 bits a channel or fewer, grey of 16, and floats.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "F", *GREY_16_BITS)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type of a PNG
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")  # of `FORMATS`, except BMP, whose two letters are too few
# First bytes of unsupported picture formats.
UNSUPPORTED = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"PK\x03\x04": "a ZIP archive",
    b"\x00\x00\x01\x00": "an icon (ICO)",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}


@dataclass(frozen=True)
class InspectedPicture:
    """A usable picture: its size in pixels after EXIF rotation, the SHA-256 of its file, and notes (`decoding.DecodedPicture`)."""

    width: int
    height: int
    sha256: str
    notes: tuple[str, ...] = ()


def inspect(folder: Path, name: str) -> InspectedPicture:
    """Checks the picture `name` of `folder`: headers first, then a full decoding. Raises `RowFault`.

    Memory is bounded by `MAX_PIXELS` and `MAX_BYTES`, whatever the file claims.
    """
    path = locate(folder, name)
    try:
        with path.open("rb") as file:
            return _inspect(file, name)
    except OSError as error:
        raise RowFault(
            "unreadable picture", f"picture {name} cannot be opened ({error.strerror})", "grant permission to read it"
        ) from error


def locate(folder: Path, name: str) -> Path:
    """Path of the file `name`, which must lie in `folder` after links are resolved and not be empty. Raises `RowFault`."""
    outside = "pictures must lie in the manifest's folder or below it: copy the file there and give its path relative to it"
    if name.startswith("/") or PureWindowsPath(name).drive:
        raise RowFault("path outside the folder", f"picture {name} is an absolute path", outside)
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise RowFault("path outside the folder", f"picture {name} leaves the folder of the manifest", outside)
        status = path.stat()
    except (OSError, RuntimeError) as error:  # a RuntimeError is a cycle of links
        hint = "; write / for \\" if "\\" in name else ""
        raise RowFault("missing picture", f"picture {name} does not exist", f"add the file, or correct the path{hint}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RowFault("not a file", f"picture {name} is not a file, but a folder or the like", "give the path of a picture file")
    if status.st_size == 0:
        raise RowFault("empty picture", f"picture {name} is a file of zero bytes", "copy it again")
    if status.st_size > MAX_BYTES:
        raise RowFault("large file", f"picture {name} has {status.st_size:,} bytes", f"save it with at most {MAX_BYTES:,}")
    return path


def open_file(folder: Path, name: str, smallest: tuple[int, int] | None = None) -> DecodedPicture:
    """The picture `name` of `folder`, decoded (`smallest`: see `decode`). Call it within `strict_pillow`.

    Raises `BadInput` if the file changed since it was checked.
    """
    try:
        with locate(folder, name).open("rb") as file:
            return decode_file(file, FORMATS, smallest)
    except (*UNDECODABLE, RowFault) as error:
        raise BadInput(f"picture {folder / name} can no longer be read ({error}); it changed since it was checked: restore it") from error


def render_manifest(folder: Path, names: Sequence[str], size: int) -> UInt8[np.ndarray, "picture size size 3"]:
    """RGB pictures, upright, uncropped, padded to squares with grey. Raises `BadInput` if a file changed since it was checked."""
    pictures = np.empty((len(names), size, size, 3), dtype=np.uint8)
    with strict_pillow():
        for index, name in enumerate(names):
            pictures[index] = square(open_file(folder, name, (size, size)).image, size)
    return pictures


def square(picture: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB picture scaled to fit a square, uncropped, on grey."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    scaled = picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return np.asarray(scaled)
    ground = Image.new("RGB", (size, size), GROUND)
    ground.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return np.asarray(ground)


def _inspect(file: BufferedReader, name: str) -> InspectedPicture:
    head = file.read(1024)
    _refuse_unsupported(head, name)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        _scan_png(file, name)
    file.seek(0)
    width, height, notes = _decode(file, name)
    file.seek(0)
    return InspectedPicture(width, height, hashlib.file_digest(file, "sha256").hexdigest(), notes)


def _refuse_unsupported(head: bytes, name: str) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    format_ = next((format_ for start, format_ in UNSUPPORTED.items() if head.startswith(start) or text.startswith(start)), None)
    if text.startswith((b"<?xml", b"<!DOCTYPE svg", b"<!--")) and b"<svg" in text:
        format_ = "SVG"
    if head[4:8] == b"ftyp":
        format_ = "HEIC, AVIF or video"
    if format_ is not None:
        raise RowFault("unsupported format", f"picture {name} is {format_}", f"convert it to one of {', '.join(FORMATS)}")


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_SIDE:
        problem = f"picture {name} has {width:,} x {height:,} pixels by its header"
        raise RowFault("large picture", problem, f"scale it down until no side is longer than {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        problem = f"picture {name} has {width:,} x {height:,} pixels by its header, {width * height:,} in all"
        raise RowFault("too many pixels", problem, f"scale it down to at most {MAX_PIXELS:,}")


def _scan_png(file: BufferedReader, name: str) -> None:
    """Checks the chunks of a PNG without inflating its pixels, which Pillow would allocate memory for."""
    truncated = RowFault("truncated picture", f"picture {name} is incomplete", "copy it again")
    end = file.seek(0, 2)
    file.seek(8)
    max_bytes, num_bytes = 0, 0
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise truncated
        length, kind = struct.unpack(">I4s", head)
        start = file.tell()
        if kind == b"IHDR":
            max_bytes = _max_pixel_bytes(file.read(length) if length == 13 else b"", name)
        elif kind == b"IDAT":
            num_bytes += length
            if num_bytes > max_bytes:
                problem = f"picture {name} has {num_bytes:,} bytes of pixels or more, but its header allows {max_bytes:,}"
                raise RowFault("picture bomb", problem, "it is broken or malicious: save it again from its source")
        elif kind == b"IEND":
            return
        elif kind == b"fdAT":
            pass  # pixels of later frames, which are not read
        else:
            _check_chunk(file, length, kind, name)
        if start + length + 4 > end:
            raise truncated
        file.seek(start + length + 4)


def _max_pixel_bytes(header: bytes, name: str) -> int:
    """Largest allowed size of a PNG's compressed pixels in bytes: the raw size plus 10 %, since deflate hardly ever grows data."""
    broken = RowFault("broken picture", f"picture {name} has an invalid header", "save it again from its source")
    if len(header) != 13:
        raise broken
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    if colour not in CHANNELS:
        raise broken
    _check_size(width, height, name)
    return int((width * depth * CHANNELS[colour] // 8 + 2) * height * 1.1) + 4096


def _check_chunk(file: BufferedReader, length: int, kind: bytes, name: str) -> None:
    """Refuses a chunk other than pixels that is larger than `MAX_CHUNK`, stored or inflated."""
    size = length
    if length <= MAX_CHUNK and kind in (b"zTXt", b"iTXt", b"iCCP"):
        _, _, rest = file.read(length).partition(b"\0")
        if kind == b"iTXt":  # compression flag and method; language; translated keyword; text
            compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        else:
            compressed, rest = True, rest[1:]
        if compressed:
            inflater = zlib.decompressobj()
            try:
                size = len(inflater.decompress(rest, MAX_CHUNK + 1))
            except zlib.error:
                return  # damaged metadata, which Pillow leaves out
    if size > MAX_CHUNK:
        problem = f"picture {name} has a {kind.decode('latin-1')} chunk, which is not pixels, of more than {MAX_CHUNK:,} bytes"
        raise RowFault("giant chunk", problem, "save it without texts and profiles")


def _decode(file: BufferedReader, name: str) -> tuple[int, int, tuple[str, ...]]:
    """Width and height after EXIF rotation, and notes; the file is read to its end, a JPEG at a reduced scale. Raises `RowFault`."""
    opened = False
    try:
        with strict_pillow(), Image.open(file, formats=FORMATS) as image:
            opened = True
            _check_size(*image.size, name)
            if image.mode not in MODES:
                raise RowFault("unsupported format", f"picture {name} has pixels of mode {image.mode}", "save it with 8 bits a channel")
            if image.mode in ("F", "P"):
                decode(image)  # values must have a known white, and a palette be there
            facts = facts_of(image)
            if image.format in JPEGS:
                image.draft(None, (1, 1))
                image.load()
            return facts.width, facts.height, facts.notes
    except UnsupportedPixels as error:
        raise RowFault("unsupported format", f"picture {name}: {error}", "save it with 8 bits a channel") from error
    except Image.DecompressionBombError as error:
        raise RowFault("too many pixels", f"picture {name}: {error}", f"scale it down to at most {MAX_PIXELS:,}") from error
    except UNDECODABLE as error:
        if opened and (isinstance(error, EOFError) or "truncated" in str(error).lower()):
            raise RowFault("truncated picture", f"picture {name} is incomplete", "copy it again") from error
        file.seek(0)
        if opened or file.read(12).startswith(MAGIC):
            raise RowFault("broken picture", f"picture {name} cannot be decoded", "it is damaged: save it again from its source") from error
        raise RowFault("not a picture", f"picture {name} is not a picture", f"give a file of one of {', '.join(FORMATS)}") from error
