"""A disk that is full at some write, a read-only one, and an output folder that is removed while a command writes to it.

Real file systems: a tmpfs of a few pages and a read-only mount. What a command leaves must be whole or nothing: with space again, the same
command ends with the bytes of an undisturbed run.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.disk_commands import DiskCommand, commands, content
from helpers.small_disk import PLENTY, SmallDisk, read_only, skip_without_mounts, small_disk

NAMES = ("train", "survey", "study", "blind", "report", "convert", "fetch", "export", "csv")
NUM_FULL = 8  # sizes of the disk, of each command, with --exhaustive
FULL = re.compile(r"No space left on device|ENOSPC|for lack of space")


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves on a disk with enough space, and the pages of it that it takes at most."""

    files: dict[str, bytes]
    pages: int


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    skip_without_mounts()
    with small_disk(tmp_path_factory.mktemp("disks") / "disk") as mounted:
        yield mounted


@pytest.fixture(scope="module")
def all_commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiskCommand]:
    skip_without_mounts()
    return commands(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def undisturbed(disk: SmallDisk, all_commands: dict[str, DiskCommand]) -> Iterator[dict[str, Undisturbed]]:
    yield {}


def whole(name: str, disk: SmallDisk, command: DiskCommand, known: dict[str, Undisturbed]) -> Undisturbed:
    """The undisturbed run of a command, once."""
    if name not in known:
        disk.resize(PLENTY)
        disk.clear()
        with disk.watching() as most:
            done = command.run(disk.folder)
        assert done.returncode == 0, done.stderr
        known[name] = Undisturbed(content(disk.folder), most[0])
    return known[name]


def refused_in_a_sentence(done: subprocess.CompletedProcess[str], disk: Path) -> None:
    """The command ended with status 2 and one sentence, which names a file on the disk."""
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.returncode, done.stderr)
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("theodolite: ") and str(disk) in sentence, done.stderr
    assert [line for line in done.stderr.splitlines() if line.strip()] == [sentence], done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_named_in_a_sentence_and_with_space_again_the_bytes_are_those_of_an_undisturbed_run(
    name: str, disk: SmallDisk, all_commands: dict[str, DiskCommand], undisturbed: dict[str, Undisturbed], every: bool
) -> None:
    command = all_commands[name]
    expected = whole(name, disk, command, undisturbed)
    sizes = range(1, expected.pages + 1, max(expected.pages // NUM_FULL, 1)) if every else ((2 * expected.pages) // 3,)
    num_full = 0
    for pages in sizes:
        disk.resize(PLENTY)
        disk.clear()
        disk.resize(pages)
        done = command.run(disk.folder)
        if done.returncode != 0:
            num_full += 1
            refused_in_a_sentence(done, disk.folder)
            assert FULL.search(done.stderr), (pages, done.stderr)
            disk.resize(PLENTY)
            done = command.run(disk.folder)
            assert done.returncode == 0, (pages, done.stderr)
        left = content(disk.folder)
        assert left.keys() == expected.files.keys(), (pages, left.keys() ^ expected.files.keys())
        assert [key for key in left if left[key] != expected.files[key]] == [], pages
    assert num_full > 0
    print(f"{name}: {len(sizes)} sizes up to {expected.pages} pages, {num_full} of them too small")


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_disk_is_named_in_a_sentence(name: str, tmp_path: Path, all_commands: dict[str, DiskCommand]) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with read_only(folder):
        refused_in_a_sentence(all_commands[name].run(folder), folder)
    assert not list(folder.iterdir())
