"""The pictures of a folder: found, known by their content, and opened one at a time. No torch."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.worlds.exif_orientation import on_white
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import FORMATS, inspect

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureFile:
    """A picture by its path, its name (the path from the folder, with /), and the SHA-256 of its file."""

    path: Path
    name: str
    sha256: str


@dataclass
class FolderPictures:
    """The pictures of a folder in the order of their names, each content once.

    `copies` are names of files that hold the same bytes as an earlier one, by name; `left_out` are names of files that cannot be used, by
    the kind of fault (`worlds.manifest_faults.KINDS`).
    """

    files: list[PictureFile]
    copies: dict[str, str]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str, kind: str) -> None:
        """Counts a file that cannot be used."""
        self.left_out.setdefault(kind, []).append(name)


def find_pictures(folder: Path, tell: Callable[[int, int], None]) -> FolderPictures:
    """The picture files in a folder and below it, by their endings; those that begin with a dot, and folders that do, are passed over.

    Only bytes are read: whether they are pictures shows when they are opened. Raises `BadInput` if there is no such folder, or it holds
    none.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give a folder of pictures")
    paths = sorted(_below(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise BadInput(
            f"{folder} holds no pictures; files whose names end in {', '.join(SUFFIXES)} are looked for, in folders below it too"
        )
    found = FolderPictures([], {})
    first: dict[str, str] = {}
    for at, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix()
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            found.leave_out(name, "unreadable picture")
        else:
            if first.setdefault(sha256, name) != name:
                found.copies[name] = first[sha256]
            else:
                found.files.append(PictureFile(path, name, sha256))
        tell(at, len(paths))
    return found


def open_stored_picture(path: Path) -> Image.Image:
    """A picture in RGB, upright, on white where it is transparent. Raises `RowFault` for what a manifest could not hold either."""
    whole = path.resolve()  # a link is as good as its file here
    inspect(whole.parent, whole.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd but readable files
        with Image.open(whole, formats=FORMATS) as image:
            return on_white(image)


def reader(found: FolderPictures, file: PictureFile) -> Callable[[], Image.Image | None]:
    """What opens a picture when it is called; None, and the file counted as left out, where that fails."""

    def read() -> Image.Image | None:
        try:
            return open_stored_picture(file.path)
        except RowFault as fault:
            found.leave_out(file.name, fault.kind)
            return None

    return read


def _below(folder: Path) -> list[Path]:
    return [
        Path(root) / name
        for root, _, names in _walk(folder)
        for name in names
        if not name.startswith(".") and name.lower().endswith(SUFFIXES) and (Path(root) / name).is_file()
    ]


def _walk(folder: Path) -> list[tuple[str, list[str], list[str]]]:
    visited = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visited.append((root, folders, names))
    return visited
