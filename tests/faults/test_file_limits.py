"""Writes that fail without a mount: files that may not grow (RLIMIT_FSIZE), a standard output that is full, a user who may not write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import HELPERS
from helpers.command_line import run_warm
from helpers.disk_commands import DiskCommand, commands, content
from theodolite.records.errors import BadInput
from theodolite.records.folder import whole_folder, write_whole

# Commands that write a file of more than so many bytes, and the commands that CI tries.
LIMITS = {"report": 30_000, "study": 9_000, "train": 300_000, "survey": 20_000, "blind": 4_000}


@pytest.fixture(scope="module")
def all_commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DiskCommand]:
    return commands(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "report" else pytest.mark.exhaustive) for name in LIMITS])
def test_a_file_that_may_not_grow_is_named_and_without_the_limit_the_bytes_are_those_of_an_undisturbed_run(
    name: str, tmp_path: Path, all_commands: dict[str, DiskCommand]
) -> None:
    command = all_commands[name]
    for folder in ("limited", "undisturbed"):
        (tmp_path / folder).mkdir()
    limited = run_warm(HELPERS / "limited_files.py", LIMITS[name], *command.words(tmp_path / "limited"), environment={"COLUMNS": "300"})
    assert limited.returncode == 2 and "Traceback" not in limited.stderr, limited.stderr
    sentence = limited.stderr.splitlines()[-1]
    assert sentence.startswith("theodolite: ") and str(tmp_path / "limited") in sentence and "File too large" in sentence, limited.stderr
    for folder in ("limited", "undisturbed"):
        done = command.run(tmp_path / folder)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "limited") == content(tmp_path / "undisturbed")


def test_a_standard_output_that_is_full_is_a_sentence() -> None:
    command = [sys.executable, "-m", "theodolite", "coverage", "shapes", "--ask", "shape"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("theodolite: standard output, or a file, cannot be written (No space left")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    """In a child that gives up its rights, since root may write everywhere."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and "pytest" in parent.name:
            parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        refused = 0
        for write in (lambda: write_whole(tmp_path / "file", b""), lambda: whole_folder(tmp_path / "folder").__enter__()):
            try:
                write()
            except BadInput as error:
                refused += str(tmp_path) in str(error)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert not list(tmp_path.iterdir())
