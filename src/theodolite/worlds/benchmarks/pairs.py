"""What readers of layouts make: rows of a manifest with the pictures that they name, and what they had to leave out."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput

Content = Path | bytes  # where a picture lies, or what its file holds
EXTENSIONS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
YES_NO = {"yes", "no"}
CAPTION = "Which caption fits the picture?"


@dataclass(frozen=True, eq=False)
class ConvertedRow:
    """A row of a manifest, and the content of each picture that it names."""

    row: Mapping[str, Any]
    pictures: Mapping[str, Content]


@dataclass(frozen=True)
class SkippedRecord:
    """A record that no row could be made of, and why."""

    why: str


Records = Iterator[ConvertedRow | SkippedRecord]


def one_of(source: Path, names: Sequence[str], what: str) -> Path:
    """The first of some paths below a folder that is there. Raises `BadInput`."""
    if not source.is_dir():
        raise BadInput(f"{source} is no folder; give the folder of {what}")
    for name in names:
        if (source / name).exists():
            return source / name
    raise BadInput(f"{source} holds neither of {', '.join(names)}; give the folder of {what} as its authors give it")


def within(folder: Path, name: str) -> Path:
    """The file of that name directly in a folder, whatever folders the name pretends to."""
    return folder / name.replace("\\", "/").rsplit("/", 1)[-1]


def form_of(choices: Sequence[str]) -> str:
    """yes_no if the choices are yes and no, else open."""
    return "yes_no" if {choice.strip().lower() for choice in choices} == YES_NO else "open"


def shuffled_choices(choices: Sequence[str], scene: str) -> list[str]:
    """The choices in an order that belongs to the scene, so that the right one has no place of its own."""
    order = sorted(dict.fromkeys(choices))
    random.Random(zlib.crc32(scene.encode(errors="replace"))).shuffle(order)
    return order


def extension(content: bytes) -> str:
    """How files of such a picture are called; png if nobody knows."""
    return next((found for start, found in EXTENSIONS.items() if content.startswith(start)), "png")
