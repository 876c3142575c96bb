"""Pictures that strangers send: found inside their folder, refused by their headers where they are too large, decoded once to be sure."""

from __future__ import annotations

import hashlib
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PureWindowsPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from theodolite.records.errors import BadInput
from theodolite.worlds.exif_orientation import ORIENTATION, on_white
from theodolite.worlds.manifest.faults import RowFault

MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000  # 256 MB decoded at 4 bytes a pixel, which bounds the memory of a check
MAX_BYTES = 256 * 2**20
MAX_CHUNK = 2**20  # of a PNG's text or colour profile, as stored and as inflated
GROUND = (128, 128, 128)  # beside a picture that is not square
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")  # 8 bits a channel, or fewer
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour types
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")  # of `FORMATS`; two letters of BMP are too few to tell
# What files begin with that are pictures to people, yet of no format that is read here.
OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"PK\x03\x04": "a ZIP archive",
    b"\x00\x00\x01\x00": "an icon (ICO)",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
# Everything that Pillow's decoders are known to raise on files that are not what they say.
UNDECODABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError, RuntimeError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class InspectedPicture:
    """A picture that can be used: its size in pixels as it is looked at (upright), and the SHA-256 of its file."""

    width: int
    height: int
    sha256: str


def inspect(folder: Path, name: str) -> InspectedPicture:
    """Checks the picture `name` of `folder`: headers first, then everything is decoded once. Raises `RowFault`.

    Memory is bounded by `MAX_PIXELS` and `MAX_BYTES`, whatever the file says of itself.
    """
    path = locate(folder, name)
    try:
        with path.open("rb") as file:
            return _inspect(file, name)
    except OSError as error:
        raise RowFault("unreadable picture", f"picture {name} cannot be opened ({error.strerror})", "give the right to read it") from error


def locate(folder: Path, name: str) -> Path:
    """The file that `name` stands for, which lies in `folder` whatever its links say, and is not empty. Raises `RowFault`."""
    outside = "pictures lie in the manifest's own folder or below it: copy the file there and give its path from there"
    if name.startswith("/") or PureWindowsPath(name).drive:
        raise RowFault("path outside the folder", f"picture {name} is an absolute path", outside)
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise RowFault("path outside the folder", f"picture {name} leaves the folder of the manifest", outside)
        found = path.stat()
    except (OSError, RuntimeError) as error:  # a RuntimeError is a circle of links
        other = "; write / for \\" if "\\" in name else ""
        raise RowFault("missing picture", f"picture {name} is not there", f"put the file there, or correct the path{other}") from error
    if not stat.S_ISREG(found.st_mode):
        raise RowFault("not a file", f"picture {name} is a folder or another thing that is no file", "give the path of a picture file")
    if found.st_size == 0:
        raise RowFault("empty picture", f"picture {name} is a file of zero bytes", "copy it again")
    if found.st_size > MAX_BYTES:
        raise RowFault("large file", f"picture {name} has {found.st_size:,} bytes", f"save it with at most {MAX_BYTES:,}")
    return path


def render_manifest(folder: Path, names: Sequence[str], size: int) -> UInt8[np.ndarray, "picture size size 3"]:
    """RGB pictures, upright, whole, on grey where they are not square. Raises `BadInput` if a file changed since it was checked."""
    pictures = np.empty((len(names), size, size, 3), dtype=np.uint8)
    for index, name in enumerate(names):
        try:
            with _strictly(), Image.open(locate(folder, name), formats=FORMATS) as image:
                pictures[index] = _square(image, size)
        except (*UNDECODABLE, RowFault) as error:
            raise BadInput(
                f"picture {folder / name} can no longer be read ({error}); it changed since it was checked: restore it"
            ) from error
    return pictures


def _square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    whole = on_white(image)
    scale = size / max(whole.size)
    width, height = (max(1, round(side * scale)) for side in whole.size)
    if (width, height) != whole.size:
        whole = whole.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return np.asarray(whole)
    ground = Image.new("RGB", (size, size), GROUND)
    ground.paste(whole, ((size - width) // 2, (size - height) // 2))
    return np.asarray(ground)


def _inspect(file: BufferedReader, name: str) -> InspectedPicture:
    head = file.read(1024)
    _refuse_others(head, name)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        _scan_png(file, name)
    file.seek(0)
    width, height = _decode(file, name)
    file.seek(0)
    return InspectedPicture(width, height, hashlib.file_digest(file, "sha256").hexdigest())


def _refuse_others(head: bytes, name: str) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    format_ = next((known for start, known in OTHERS.items() if head.startswith(start) or text.startswith(start)), None)
    if text.startswith((b"<?xml", b"<!DOCTYPE svg", b"<!--")) and b"<svg" in text:
        format_ = "SVG"
    if head[4:8] == b"ftyp":
        format_ = "HEIC, AVIF or video"
    if format_ is not None:
        raise RowFault("unsupported format", f"picture {name} is {format_}", f"convert it to one of {', '.join(FORMATS)}")


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_SIDE:
        found = f"picture {name} says it has {width:,} x {height:,} pixels"
        raise RowFault("large picture", found, f"scale it down until no side is longer than {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        found = f"picture {name} says it has {width:,} x {height:,} pixels, {width * height:,} in all"
        raise RowFault("too many pixels", found, f"scale it down to at most {MAX_PIXELS:,}")


def _scan_png(file: BufferedReader, name: str) -> None:
    """Walks the chunks of a PNG without inflating its pixels: what Pillow would only find out by allocating."""
    cut = RowFault("truncated picture", f"picture {name} ends before its end", "it was cut off: copy it again")
    end = file.seek(0, 2)
    file.seek(8)
    room, held = 0, 0
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise cut
        length, kind = struct.unpack(">I4s", head)
        start = file.tell()
        if kind == b"IHDR":
            room = _room(file.read(length) if length == 13 else b"", name)
        elif kind == b"IDAT":
            held += length
            if held > room:
                found = f"picture {name} holds {held:,} bytes of pixels or more, but its header leaves room for {room:,}"
                raise RowFault("picture bomb", found, "it is broken or meant to harm: save it anew from its source")
        elif kind == b"acTL":
            raise RowFault("animated picture", f"picture {name} is an animation", "save one frame of it as a picture")
        elif kind == b"IEND":
            return
        else:
            _check_chunk(file, length, kind, name)
        if start + length + 4 > end:
            raise cut
        file.seek(start + length + 4)


def _room(header: bytes, name: str) -> int:
    """Bytes that the compressed pixels of a PNG may take: those of the raw ones and a tenth, since deflate hardly ever grows anything."""
    broken = RowFault("broken picture", f"picture {name} has a header that is none", "save it anew")
    if len(header) != 13:
        raise broken
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    if colour not in CHANNELS:
        raise broken
    _check_size(width, height, name)
    return int((width * depth * CHANNELS[colour] // 8 + 2) * height * 1.1) + 4096


def _check_chunk(file: BufferedReader, length: int, kind: bytes, name: str) -> None:
    """Refuses a chunk that is no pixels and larger than `MAX_CHUNK`, stored or inflated."""
    size = length
    if length <= MAX_CHUNK and kind in (b"zTXt", b"iTXt", b"iCCP"):
        _, _, rest = file.read(length).partition(b"\0")
        if kind == b"iTXt":  # whether compressed, how; language; translated keyword; text
            packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        else:
            packed, rest = True, rest[1:]
        if packed:
            inflater = zlib.decompressobj()
            try:
                size = len(inflater.decompress(rest, MAX_CHUNK + 1))
            except zlib.error as error:
                broken = f"picture {name} has a broken {kind.decode()} chunk"
                raise RowFault("broken picture", broken, "save it anew, without texts and profiles") from error
    if size > MAX_CHUNK:
        found = f"picture {name} has a {kind.decode('latin-1')} chunk of more than {MAX_CHUNK:,} bytes, which is no pixels"
        raise RowFault("giant chunk", found, "save it without texts and profiles")


def _decode(file: BufferedReader, name: str) -> tuple[int, int]:
    """Size of the picture as it is looked at; everything is decoded. Raises `RowFault`."""
    known = False
    try:
        with _strictly(), Image.open(file, formats=FORMATS) as image:
            known = True
            _check_size(*image.size, name)
            # A photograph of many phones is an MPO: a JPEG with a smaller copy behind it.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise RowFault("animated picture", f"picture {name} has several frames or pages", "save one of them as a picture")
            if image.mode not in MODES:
                raise RowFault("unsupported format", f"picture {name} has pixels of mode {image.mode}", "save it with 8 bits a channel")
            image.load()
            turned = image.getexif().get(ORIENTATION) in TURNED
            return (image.height, image.width) if turned else (image.width, image.height)
    except Image.DecompressionBombError as error:
        raise RowFault("too many pixels", f"picture {name}: {error}", f"scale it down to at most {MAX_PIXELS:,}") from error
    except UNDECODABLE as error:
        if known and (isinstance(error, EOFError) or "truncated" in str(error).lower()):
            raise RowFault("truncated picture", f"picture {name} ends before its end", "it was cut off: copy it again") from error
        file.seek(0)
        if known or file.read(12).startswith(MAGIC):
            raise RowFault("broken picture", f"picture {name} cannot be decoded", "it was cut off or damaged: save it anew") from error
        raise RowFault("not a picture", f"picture {name} is no picture", f"give a file of one of {', '.join(FORMATS)}") from error


@contextmanager
def _strictly() -> Iterator[None]:
    """Within it Pillow refuses files that are cut off, whatever else in this process asked of it, and is silent about odd ones."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
