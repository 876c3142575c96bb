"""Output of benchmark readers: manifest rows with their pictures, and skipped records; and what all readers share."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput
from theodolite.records.reading import read_json

Content = Path | bytes  # the path of a picture file, or its bytes
EXTENSIONS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}
YES_NO = {"yes", "no"}
CAPTION = "Which caption fits the picture?"


@dataclass(frozen=True, eq=False)
class ConvertedRow:
    """A manifest row, and the content of each picture that it names."""

    row: Mapping[str, Any]
    pictures: Mapping[str, Content]


@dataclass(frozen=True)
class SkippedRecord:
    """A record that could not be converted, and why."""

    why: str


Records = Iterator[ConvertedRow | SkippedRecord]


def one_of(source: Path, names: Sequence[str], what: str) -> Path:
    """The first of some paths below `source` that exists; `what` is the benchmark's name in errors. Raises `BadInput`."""
    if not source.is_dir():
        raise BadInput(f"{source} is not a folder; give the folder of {what}")
    for name in names:
        if (source / name).exists():
            return source / name
    raise BadInput(f"{source} holds none of {', '.join(names)}; give the folder of {what} as its authors publish it")


def json_list(path: Path, keys: str) -> list[Mapping[str, Any]]:
    """The list of objects in a JSON file; `keys` describes the expected keys in errors. Raises `BadInput`."""
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{path} is not a list of objects with {keys}; download it again from its authors")
    return entries


def within(folder: Path, name: str) -> Path:
    """The file of that name directly in a folder; folders in the name are dropped."""
    return folder / name.replace("\\", "/").rsplit("/", 1)[-1]


def form_of(choices: Sequence[str]) -> str:
    """Form of a question: yes_no if its choices are yes and no, else open."""
    return "yes_no" if {choice.strip().lower() for choice in choices} == YES_NO else "open"


def shuffled_choices(choices: Sequence[str], scene: str) -> list[str]:
    """The choices without repetitions in a random order seeded by the scene, so that position does not reveal the right one."""
    order = sorted(dict.fromkeys(choices))
    random.Random(zlib.crc32(scene.encode(errors="replace"))).shuffle(order)
    return order


def extension(content: bytes) -> str:
    """File extension of an encoded picture by its first bytes; png if they are unknown."""
    return next((name for start, name in EXTENSIONS.items() if content.startswith(start)), "png")
