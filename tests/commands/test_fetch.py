"""`theodolite fetch openmoji` against an npm written by the test: it installs, fails, lies, dies, or is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.openmoji_package import write_package
from theodolite.commands.fetch import fault_of, fetch_openmoji
from theodolite.records.errors import BadInput

# Finds the folder after --prefix, and puts the package there as npm would.
INSTALL = """#!/bin/sh
echo "$@" >> "{log}"
while [ "$1" != "--prefix" ]; do shift; done
mkdir -p "$2/node_modules"
cp -R "{package}" "$2/node_modules/openmoji"
{after}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "registry" / "openmoji")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where galleries look: below an empty cache folder."""
    monkeypatch.delenv("THEODOLITE_OPENMOJI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "theodolite" / "openmoji" / "node_modules" / "openmoji"


def _npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """An npm that comes first on PATH; gives the file in which `INSTALL` logs its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(script)
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path / "log.txt"


def _install(tmp_path: Path, package: Path, after: str = "") -> str:
    return INSTALL.format(log=tmp_path / "log.txt", package=package, after=after)


def _theodolite(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "theodolite", *arguments], capture_output=True, text=True, check=False)


def test_the_command_installs_one_version_once_and_says_whose_work_it_is(
    package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _npm(tmp_path, monkeypatch, _install(tmp_path, package))
    done = _theodolite("fetch", "openmoji")
    assert done.returncode == 0, done.stderr
    assert f"installed in {cache}" in done.stdout and "CC BY-SA 4.0" in done.stdout and "https://openmoji.org" in done.stdout
    assert fault_of(cache) is None
    again = _theodolite("fetch", "openmoji")
    assert again.returncode == 0 and "already installed in" in again.stdout and "CC BY-SA 4.0" in again.stdout
    calls = log.read_text().splitlines()
    assert len(calls) == 1 and calls[0].endswith("openmoji@17.0.0") and calls[0].startswith("install --prefix ")
    assert [path.name for path in cache.parent.parent.iterdir()] == ["node_modules"], "no folder of npm's is left"


def test_another_folder_can_be_named(package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(tmp_path, monkeypatch, _install(tmp_path, package))
    fetched = fetch_openmoji(tmp_path / "mine")
    assert fetched.installed and fetched.home == tmp_path / "mine" / "node_modules" / "openmoji" and fault_of(fetched.home) is None
    assert not cache.exists()


def test_a_missing_npm_is_said(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(BadInput, match="npm was not found; install Node"):
        fetch_openmoji()


def test_a_failing_npm_is_quoted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "npm error code E404\\nnpm error 404 Not Found - openmoji\\nnpm error A complete log of this run can be found in: /x-debug-0.log"
    _npm(tmp_path, monkeypatch, f'#!/bin/sh\nprintf "{said}\\n" >&2\nexit 1\n')
    done = _theodolite("fetch", "openmoji")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "(status 1): npm error 404 Not Found - openmoji" in done.stderr
    assert not cache.exists()


def test_an_install_that_was_killed_does_not_look_complete(
    package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command itself dies, as by kill -9, when npm has brought everything but its last drawings.
    _npm(tmp_path, monkeypatch, _install(tmp_path, package, after='rm "$2"/node_modules/openmoji/color/svg/1F4*; kill -9 $PPID'))
    done = _theodolite("fetch", "openmoji")
    assert done.returncode == -9 and not cache.exists()
    _npm(tmp_path, monkeypatch, _install(tmp_path, package))
    assert fetch_openmoji().installed and fault_of(cache) is None


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ('rm "$2"/node_modules/openmoji/color/svg/1F44B.svg', "1 of .* drawings are missing"),
        ('echo "[" > "$2"/node_modules/openmoji/data/openmoji.json', "is incomplete"),
        ('echo \'{"version": "16.0.0"}\' > "$2"/node_modules/openmoji/package.json', "is version 16.0.0, not 17.0.0"),
        ('rm -r "$2"/node_modules', "is not there"),
    ],
)
def test_what_npm_brings_is_checked(
    package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, fault: str
) -> None:
    _npm(tmp_path, monkeypatch, _install(tmp_path, package, after=damage))
    with pytest.raises(BadInput, match=fault):
        fetch_openmoji()
    assert not cache.exists()


def test_a_damaged_package_is_replaced(package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(cache, version="15.1.0")
    assert fault_of(cache) == "is version 15.1.0, not 17.0.0"
    _npm(tmp_path, monkeypatch, _install(tmp_path, package))
    assert fetch_openmoji().installed and fault_of(cache) is None


def test_a_folder_named_by_hand_is_not_written_over(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(tmp_path / "somewhere"))
    with pytest.raises(BadInput, match=r"THEODOLITE_OPENMOJI names .*somewhere, which is not there"):
        fetch_openmoji()


def test_there_is_nothing_else_to_fetch() -> None:
    done = _theodolite("fetch", "photographs")
    assert done.returncode == 2 and "there is openmoji" in done.stderr
