"""Atomic writing of files and folders, by one process at a time, and the cache folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from theodolite.records.errors import BadInput
from theodolite.records.machine_faults import naming_disk_faults

# End of the name of the file that a writing process locks.
LOCK = ".lock"
# What this process is writing.
_OWN: set[Path] = set()


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
def sole_writer(out: Path) -> Iterator[None]:
    """Within the context no other process writes `out`, a file or folder; contexts can be nested.

    What killed processes have left beside it is removed first, and what they had moved away is moved back. Raises `BadInput` if another
    process is writing it. The lock is a file, which ends with the context; the system releases it when a process is killed.
    """
    target = out.resolve()
    if target in _OWN:
        yield
        return
    with _refusing(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        home = target.parent if os.access(target.parent, os.W_OK | os.X_OK) else target
        lock = FileLock(home / f".{target.name}{LOCK}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BadInput(f"another process is writing {out}; wait for it, or give another path") from None
    try:
        _OWN.add(target)
        with _refusing(out):
            _restore(target)
        yield
    finally:
        _OWN.discard(target)
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def sole_writer_of(last: Path, others: Sequence[Path]) -> Iterator[None]:
    """`sole_writer` of several outputs, of which `last` is written last.

    Where a kill came before that, the next context removes those of the others that the killed one had made, so that the same command does
    not refuse to replace them.
    """
    begun = last.with_name(f".{last.name}.begun")
    with sole_writer(last):
        left = begun.read_text().splitlines() if begun.is_file() and not last.exists() else []
        for path in others:
            if str(path.resolve()) in left and path.exists():
                delete(path)
        write_whole(begun, "".join(f"{path.resolve()}\n" for path in others if not path.exists()))
        try:
            yield
        finally:
            begun.unlink(missing_ok=True)


def _restore(target: Path) -> None:
    """Moves `target` back where a killed process had moved it away, and deletes what else such processes left beside it."""
    name = escape(target.name)
    for old in target.parent.glob(f".{name}.old-*"):
        if not target.exists():
            old.rename(target)
    for kind in ("old", "part", "discarded"):
        for left in target.parent.glob(f".{name}.{kind}-*"):
            delete(left)


def delete(path: Path) -> None:
    """Deletes a file or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def whole_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder to write into, which is renamed to `out` when the block ends without an error.

    If the block ends early (an error, Ctrl-C), `out` is unchanged. Raises `FolderTaken`, or `BadInput` if it cannot be made, its disk is
    full, or another process is writing it.
    """
    refuse_taken(out, overwrite=overwrite)
    target = out.resolve()
    part = target.parent / f".{target.name}.part-{os.getpid()}"
    with sole_writer(out):
        refuse_taken(out, overwrite=overwrite)  # another process may have ended in between
        try:
            with _refusing(out):
                part.mkdir()
            with naming_disk_faults(out):
                yield part
            with _refusing(out):
                _replace(target, part)
        except BadInput as error:
            if type(error) is not BadInput or str(part) not in str(error):
                raise
            raise BadInput(str(error).replace(str(part), str(out))) from error  # the name that the file would have got
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
    """Deletes a folder, renamed first: a kill on the way leaves no part of it under its name, and the rest to the next `sole_writer`.

    Raises `BadInput` if it cannot be deleted.
    """
    refuse_taken(folder, overwrite=True)
    target = folder.resolve()
    with _refusing(folder):
        if target.exists():
            old = target.rename(target.parent / f".{target.name}.discarded-{os.getpid()}")
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
