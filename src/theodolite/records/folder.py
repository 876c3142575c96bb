"""Folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theodolite.records.errors import BadInput


class FolderTaken(BadInput):
    """An output folder already holds something, and nobody said that it may go."""


def refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Raises `FolderTaken` if `out` exists with content and may not be overwritten."""
    if out.is_file():
        raise FolderTaken(f"{out} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise FolderTaken(f"{out} already holds files; give another folder, or --overwrite to replace it")


@contextmanager
def whole_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes its place at `out` only when the block ends well.

    Whatever ends the block early (an error, Ctrl-C) leaves `out` as it was. Raises `FolderTaken`.
    """
    refuse_taken(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.parent / f".{out.name}.part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if out.exists():
            old = out.parent / f".{out.name}.old-{os.getpid()}"
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old)
        else:
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """A file that is written under another name first, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
