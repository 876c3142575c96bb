"""Picture files of a folder, identified by content and opened one at a time. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import inspect, open_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureFile:
    """A picture file: its path, its name (the path relative to the folder, with /), and its SHA-256."""

    path: Path
    name: str
    sha256: str


@dataclass
class FolderPictures:
    """The pictures of a folder sorted by name, each content once.

    `copies` maps the name of a file to the name of an earlier file with the same bytes. `left_out` lists names of unusable files by kind
    of fault (`worlds.manifest.faults.KINDS`).
    """

    files: list[PictureFile]
    copies: dict[str, str]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str, kind: str) -> None:
        """Records a file that cannot be used."""
        self.left_out.setdefault(kind, []).append(name)


def find_pictures(folder: Path, progress: Progress) -> FolderPictures:
    """The picture files in a folder and below it, by file extension; files and folders whose names begin with a dot are skipped.

    Files are hashed, not decoded. Raises `BadInput` if the folder does not exist or has no pictures.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give a folder of pictures")
    paths = sorted(_below(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise BadInput(f"{folder} has no pictures; give a folder with files that end in {', '.join(SUFFIXES)}, in it or below it")
    pictures = FolderPictures([], {})
    first: dict[str, str] = {}
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix()
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            pictures.leave_out(name, "unreadable picture")
        else:
            if first.setdefault(sha256, name) != name:
                pictures.copies[name] = first[sha256]
            else:
                pictures.files.append(PictureFile(path, name, sha256))
        progress(done, len(paths))
    return pictures


def open_stored_picture(path: Path) -> Image.Image:
    """A picture in RGB, upright, on white where transparent. Raises `RowFault` if a manifest would refuse it."""
    target = path.resolve()  # links out of the folder are allowed here
    inspect(target.parent, target.name)
    with strict_pillow():
        return open_file(target.parent, target.name).image


def reader(pictures: FolderPictures, file: PictureFile) -> Callable[[], Image.Image | None]:
    """A function that opens a picture; where that fails, it returns None and records the file as left out."""

    def read() -> Image.Image | None:
        try:
            return open_stored_picture(file.path)
        except RowFault as fault:
            pictures.leave_out(file.name, fault.kind)
            return None

    return read


def _below(folder: Path) -> list[Path]:
    paths: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk descends into what is left here
        paths += [Path(root) / name for name in names if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
    return [path for path in paths if path.is_file()]
