"""Atomic writing of files and folders, and the cache folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from theodolite.records.errors import BadInput


class FolderTaken(BadInput):
    """An output folder has content, and overwriting it was not requested."""


def refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Raises `FolderTaken` if `out` exists with content and may not be overwritten, `BadInput` if it cannot be made or replaced."""
    with _refusing(out):
        target = out.resolve()
        if Path.cwd().is_relative_to(target):
            raise BadInput(f"{out} is the current directory or holds it, so it cannot be replaced; give a folder of its own")
        if target.exists() and not target.is_dir():
            raise FolderTaken(f"{out} is a file; give a folder")
        if target.is_dir() and any(target.iterdir()) and not overwrite:
            raise FolderTaken(f"{out} already holds files; give another folder, or --overwrite to replace it")
        home = next(parent for parent in target.parents if parent.exists())
        if not home.is_dir():
            raise BadInput(f"{out} cannot be made, because {home} is a file; give a folder elsewhere")
        if not os.access(home, os.W_OK | os.X_OK):
            raise BadInput(f"{out} cannot be made, because {home} cannot be written to; give a folder elsewhere")


@contextmanager
def whole_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder to write into, which is renamed to `out` when the block ends without an error.

    If the block ends early (an error, Ctrl-C), `out` is unchanged. Raises `FolderTaken`, or `BadInput` if it cannot be made.
    """
    refuse_taken(out, overwrite=overwrite)
    target = out.resolve()
    part = target.parent / f".{target.name}.part-{os.getpid()}"
    try:
        with _refusing(out):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
        yield part
        with _refusing(out):
            _replace(target, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(out: Path, part: Path) -> None:
    """Replaces `out` by `part`. An error or Ctrl-C between the two renames leaves the old `out`."""
    old = out.parent / f".{out.name}.old-{os.getpid()}"
    try:
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def discard(folder: Path) -> None:
    """Deletes a folder, renamed first: a kill on the way leaves no part of it under its name. Then deletes what earlier kills have left.

    Raises `BadInput` if it cannot be deleted.
    """
    refuse_taken(folder, overwrite=True)
    target = folder.resolve()
    with _refusing(folder):
        if target.exists():
            target.rename(target.parent / f".{target.name}.old-{os.getpid()}")
        for old in target.parent.glob(f".{escape(target.name)}.old-*"):
            shutil.rmtree(old)


@contextmanager
def _refusing(out: Path) -> Iterator[None]:
    """Raises `BadInput` for an `OSError`."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{out} cannot be written ({error.strerror or error}); give a path that can be written") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under another name and renames it, so that no reader sees half of it. Raises `BadInput` if it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    with _refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Folder of data that can be made or fetched again: THEODOLITE_CACHE, else theodolite in XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("THEODOLITE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "theodolite"
