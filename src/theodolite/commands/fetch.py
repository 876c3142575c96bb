"""Installation of third-party picture packages for galleries."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from theodolite.records.errors import BadInput
from theodolite.records.folder import sole_writer, whole_folder
from theodolite.worlds.openmoji.data import ATTRIBUTION, VERSION, openmoji_folder

PACKAGE = f"openmoji@{VERSION}"


@dataclass(frozen=True)
class FetchedPackage:
    """A package's folder, whether this call installed it (or it was there already), and the credit line that its licence requires."""

    home: Path
    installed: bool
    attribution: str


def fetch_openmoji(into: Path | None = None) -> FetchedPackage:
    """Installs the npm package openmoji, version `VERSION`, below `into` (default: where galleries look).

    The installation is atomic: npm writes to a temporary folder next to it, which is checked and then moved. Raises `BadInput` where npm
    is missing or fails, the package is incomplete, or another process is installing it.
    """
    home = openmoji_folder() if into is None else into / "node_modules" / "openmoji"
    fault = fault_of(home)
    if fault is None:
        return FetchedPackage(home, False, ATTRIBUTION)
    if into is None and home.parts[-2:-1] != ("node_modules",):
        raise BadInput(f"THEODOLITE_OPENMOJI names {home}, which {fault}; unset it, or give --into and set it to DIR/node_modules/openmoji")
    npm = shutil.which("npm")
    if npm is None:
        raise BadInput(
            f"npm was not found; install Node.js (https://nodejs.org), or unpack the npm package {PACKAGE} "
            "yourself and set THEODOLITE_OPENMOJI to its folder"
        )
    prefix = home.parent.parent
    with sole_writer(home):
        if fault_of(home) is None:  # another process has ended in between
            return FetchedPackage(home, False, ATTRIBUTION)
        with whole_folder(home, overwrite=True) as folder:
            try:
                _install(npm, folder)
            except OSError as error:
                raise BadInput(f"{PACKAGE} cannot be installed in {prefix} ({error}); give another folder with --into") from error
    return FetchedPackage(home, True, ATTRIBUTION)


def _install(npm: str, folder: Path) -> None:
    """Fills a folder with the package as npm installs it, checked."""
    staging = folder / ".npm"  # npm wants to have the package below the folder that it is given
    # --ignore-scripts: no code of the package is run.
    command = [npm, "install", "--prefix", str(staging), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        # The last lines of npm's output name its log; the error is before them.
        errors = [line for line in lines if "complete log of this run" not in line and not line.endswith("-debug-0.log")]
        raise BadInput(
            f"npm could not install {PACKAGE} in {staging.parent} (status {done.returncode}): {errors[-1] if errors else 'no output'}"
        )
    package = staging / "node_modules" / "openmoji"
    fault = fault_of(package)
    if fault is not None:
        raise BadInput(f"npm succeeded, but the package {fault}; try again, or check npm's settings (npm config list)")
    for path in package.iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(staging)


def fault_of(home: Path) -> str | None:
    """The fault of an installed package, as a predicate ("is not there"); None if it is complete and of version `VERSION`."""
    if not home.is_dir():
        return "is not there"
    try:
        version = json.loads((home / "package.json").read_text(encoding="utf-8"))["version"]
        rows = json.loads((home / "data" / "openmoji.json").read_text(encoding="utf-8"))
        expected = {f"{row['hexcode']}.svg" for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"is incomplete ({type(error).__name__}: {error})"
    if version != VERSION:
        return f"is version {version}, not {VERSION}"
    drawings = home / "color" / "svg"
    missing = expected - {path.name for path in drawings.iterdir()} if drawings.is_dir() else expected
    return f"is incomplete ({len(missing)} of {len(expected)} drawings are missing)" if missing or not expected else None
