"""Contents of the npm package `openmoji`: its entries, their names in plain words, and its colour drawings as pixels.

theodolite does not contain the package. `theodolite fetch openmoji` installs it where `openmoji_home` looks.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.records.folder import cache_folder
from theodolite.records.reading import read_json

VERSION = "17.0.0"
ATTRIBUTION = (
    "All emojis designed by OpenMoji (https://openmoji.org/) - the open-source emoji and icon project. "
    "License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"
)
"""Attribution as the package's README suggests it."""

GRID = 72  # side of every drawing's view box: the unit of lengths that do not depend on picture size
CACHE_BYTES = 256 * 2**20

# Drawings whose name does not describe them: flags, letters and digits, trade marks, signs of user interfaces.
UNCAPTIONED_GROUPS = ("flags", "component", "extras-unicode")
UNCAPTIONED_SUBGROUPS = (
    "keycap", "regional-indicator", "subdivision-flag", "country-flag", "flags",
    "brand", "ui-element", "interaction", "queer-symbols",
)  # fmt: skip
# Names of living people.
UNCAPTIONED_NAMES = ("trump", "Greta Thunberg")


@dataclass(frozen=True)
class Emoji:
    """One entry of `data/openmoji.json`: its hexcode (also the file name of its drawing), its names, and its skin tone.

    `skintone` is "" (none), "1" (light) to "5" (dark), or two of these joined by a comma, for two people.
    """

    hexcode: str
    annotation: str
    group: str
    subgroup: str
    skintone: str
    skintone_base_hexcode: str


def openmoji_folder() -> Path:
    """Folder for the package: THEODOLITE_OPENMOJI if set, else below the cache folder."""
    if override := os.environ.get("THEODOLITE_OPENMOJI"):
        return Path(override).expanduser()
    return cache_folder() / "openmoji" / "node_modules" / "openmoji"


def openmoji_home() -> Path:
    """Folder of the installed package. Raises `BadInput` if it is missing or incomplete."""
    home = openmoji_folder()
    for path in (Path("data", "openmoji.json"), Path("color", "svg")):
        if not (home / path).exists():
            raise BadInput(
                f"no OpenMoji in {home} ({path} is missing); install it with `theodolite fetch openmoji`, "
                "or set THEODOLITE_OPENMOJI to the folder of the npm package"
            )
    return home


def entries() -> tuple[Emoji, ...]:
    """Every emoji of the package, in its order. Raises `BadInput`."""
    return _entries(openmoji_home())


@lru_cache(maxsize=4)
def _entries(home: Path) -> tuple[Emoji, ...]:
    path = home / "data" / "openmoji.json"
    try:
        return tuple(_entry(row) for row in read_json(path))
    except (BadInput, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{path} is not a list of emojis ({reason}); install it again: theodolite fetch openmoji") from error


def _entry(row: dict[str, object]) -> Emoji:
    return Emoji(
        hexcode=str(row["hexcode"]),
        annotation=str(row["annotation"]).strip(),
        group=str(row["group"]),
        subgroup=str(row["subgroups"]),
        skintone=str(row["skintone"]),
        skintone_base_hexcode=str(row["skintone_base_hexcode"]),
    )


def by_hexcode() -> dict[str, Emoji]:
    """The entries by their hexcode."""
    return {emoji.hexcode: emoji for emoji in entries()}


def captioned_emoji() -> tuple[tuple[str, str], ...]:
    """(hexcode, name in plain words) of every emoji without skin tone whose name describes it, for training on captions.

    Drawings with a skin tone are left out, so that captions never contain a picture that `openmoji:skin_tone` asks about.
    """
    return tuple((emoji.hexcode, plain_name(emoji)) for emoji in entries() if _has_caption(emoji))


def _has_caption(emoji: Emoji) -> bool:
    if emoji.skintone or emoji.group in UNCAPTIONED_GROUPS or emoji.subgroup in UNCAPTIONED_SUBGROUPS:
        return False
    return emoji.annotation not in UNCAPTIONED_NAMES and "\ufffd" not in emoji.annotation and "flag" not in emoji.annotation.lower()


def plain_name(emoji: Emoji) -> str:
    """An emoji's annotation in plain words, without its skin tone: "man: dark skin tone, red hair" is "man with red hair"."""
    head, _, tail = emoji.annotation.partition(":")
    for quote, plain in (("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"')):
        head, tail = head.replace(quote, plain), tail.replace(quote, plain)
    details = [detail.strip() for detail in tail.split(",") if detail.strip() and not detail.strip().endswith("skin tone")]
    if not details:
        return head.strip()
    if "bald" in details:
        return f"bald {head}"
    if details[0].startswith("facing"):
        return f"{head} {' '.join(details)}"
    listed = details[0] if len(details) == 1 else f"{', '.join(details[:-1])} and {details[-1]}"
    if " with " in head:
        return f"{head}, {listed}"
    return f"{head} {'of' if emoji.subgroup in ('family', 'person-symbol') else 'with'} {listed}"


class _DrawingCache:
    """Least-recently-used cache of rasterised drawings, (path, size) to RGBA, of at most `CACHE_BYTES`. Threads use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[Path, int], UInt8[np.ndarray, "size size 4"]] = OrderedDict()
        self._bytes = 0

    def get(self, path: Path, size: int) -> UInt8[np.ndarray, "size size 4"]:
        key = (path, size)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        drawn = _rasterise(path, size)
        drawn.setflags(write=False)
        with self._lock:
            if key not in self._cache:  # another thread may have drawn it meanwhile
                self._cache[key] = drawn
                self._bytes += drawn.nbytes
            while self._bytes > CACHE_BYTES and len(self._cache) > 1:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return drawn


_DRAWINGS = _DrawingCache()


def _rasterise(path: Path, size: int) -> UInt8[np.ndarray, "size size 4"]:
    if find_spec("resvg_py") is None:
        raise BadInput('OpenMoji is drawn by resvg-py, which is not installed; install it with: pip install "theodolite[openmoji]"')
    from resvg_py import svg_to_bytes

    try:
        # System fonts would make pictures depend on the machine.
        png = svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=size, height=size, skip_system_fonts=True)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"{path} cannot be drawn ({error}); install the package again: theodolite fetch openmoji") from error
    with Image.open(io.BytesIO(bytes(png))) as image:
        drawn = np.array(image.convert("RGBA"))
    if drawn.shape != (size, size, 4):
        raise BadInput(
            f"{path} is drawn {drawn.shape[1]} x {drawn.shape[0]} pixels, not square; install the package again: theodolite fetch openmoji"
        )
    return drawn


def _drawing(hexcode: str, size: int) -> UInt8[np.ndarray, "size size 4"]:
    return _DRAWINGS.get(_path(hexcode), size)


def _path(hexcode: str) -> Path:
    path = openmoji_home() / "color" / "svg" / f"{hexcode}.svg"
    if not path.is_file():
        raise BadInput(f"OpenMoji has no drawing {hexcode!r} ({path}); give a hexcode of its data/openmoji.json, such as 1F44B-1F3FF")
    return path


def drawing_text(hexcode: str) -> str:
    """The SVG of a drawing. Raises `BadInput`."""
    return _path(hexcode).read_text(encoding="utf-8")


def alpha_of(hexcode: str, size: int) -> UInt8[np.ndarray, "size size"]:
    """Opacity of each pixel of a drawing, 0 to 255. Raises `BadInput`."""
    return _drawing(hexcode, size)[..., 3]


def draw_emoji(
    hexcodes: Sequence[str], size: int, grounds: Sequence[tuple[int, int, int]], shifts: Sequence[tuple[int, int]] | None = None
) -> UInt8[np.ndarray, "picture size size 3"]:
    """RGB pictures of drawings, each on its ground colour, shifted by whole pixels (right, down) and cropped at the edges.

    Raises `BadInput` on an unknown drawing, or where resvg-py is not installed.
    """
    moves = shifts if shifts is not None else [(0, 0)] * len(hexcodes)
    if not len(hexcodes) == len(grounds) == len(moves):
        raise BadInput(f"{len(hexcodes)} drawings, {len(grounds)} grounds, {len(moves)} shifts; give one of each per picture")
    if size < 1:
        raise BadInput(f"size is {size}; give the side of the picture in pixels, 1 or more")
    pictures = np.empty((len(hexcodes), size, size, 3), dtype=np.uint8)
    for picture, hexcode, ground, (right, down) in zip(pictures, hexcodes, grounds, moves, strict=True):
        drawn = _shifted(_drawing(hexcode, size), right, down).astype(np.uint32)
        alpha = drawn[..., 3:]
        # Integer arithmetic, rounded half up: the same on every machine.
        picture[:] = (drawn[..., :3] * alpha + np.array(ground, dtype=np.uint32) * (255 - alpha) + 127) // 255
    return pictures


def _shifted(drawn: UInt8[np.ndarray, "size size 4"], right: int, down: int) -> UInt8[np.ndarray, "size size 4"]:
    if not right and not down:
        return drawn
    size = len(drawn)
    shifted = np.zeros_like(drawn)
    rows, columns = slice(max(down, 0), size + min(down, 0)), slice(max(right, 0), size + min(right, 0))
    from_rows, from_columns = slice(max(-down, 0), size + min(-down, 0)), slice(max(-right, 0), size + min(-right, 0))
    shifted[rows, columns] = drawn[from_rows, from_columns]
    return shifted
