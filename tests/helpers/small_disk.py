"""Disks of a few pages (tmpfs), and folders mounted read-only. Both need the right to mount, which root has."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PAGE = 4096
PLENTY = 20_000  # pages


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@cache
def reason_not_to_mount() -> str | None:
    """Why no disk can be mounted here; None if one can."""
    if os.getuid() != 0:
        return "only root may mount a small disk"
    with TemporaryDirectory() as folder:
        done = _run("mount", "-t", "tmpfs", "tmpfs", folder)
        if done.returncode == 0:
            _run("umount", folder)
            return None
    return f"no disk can be mounted: {done.stderr.strip()}"


def skip_without_mounts() -> None:
    reason = reason_not_to_mount()
    if reason is not None:
        pytest.skip(reason)


@dataclass
class SmallDisk:
    """A mounted tmpfs."""

    folder: Path

    def resize(self, pages: int) -> None:
        """Makes room for so many pages in all; tmpfs takes a size of 0 as no limit, so 1 page is the least."""
        done = _run("mount", "-o", f"remount,size={max(pages, 1) * PAGE}", self.folder)
        assert done.returncode == 0, done.stderr

    def used(self) -> int:
        """Pages in use."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize // PAGE

    @contextmanager
    def watching(self) -> Iterator[list[int]]:
        """Notes the most pages in use within the context."""
        most, ended = [self.used()], threading.Event()

        def watch() -> None:
            while not ended.wait(0.002):
                most[0] = max(most[0], self.used())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield most
        finally:
            ended.set()
            thread.join()

    def clear(self) -> None:
        """Removes all that lies on the disk."""
        _run("find", self.folder, "-mindepth", "1", "-delete")


@contextmanager
def small_disk(folder: Path, pages: int = PLENTY) -> Iterator[SmallDisk]:
    """A disk of so many pages, mounted at a new folder."""
    folder.mkdir(parents=True)
    done = _run("mount", "-t", "tmpfs", "-o", f"size={pages * PAGE}", "tmpfs", folder)
    assert done.returncode == 0, done.stderr
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "-l", folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Within the context the file system below a folder is read-only, for root too."""
    for options in ("bind", "remount,ro,bind"):
        done = _run("mount", "-o", options, folder, folder)
        assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        _run("umount", "-l", folder)
