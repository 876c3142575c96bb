"""Pictures that belong to others, brought from where they publish them to where the galleries look."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from theodolite.records.errors import BadInput
from theodolite.worlds.openmoji.data import ATTRIBUTION, VERSION, openmoji_folder

PACKAGE = f"openmoji@{VERSION}"


@dataclass(frozen=True)
class Fetched:
    """Where a package lies, whether it was installed just now (or was there already), and what its licence asks to be said."""

    home: Path
    installed: bool
    attribution: str


def fetch_openmoji(into: Path | None = None) -> Fetched:
    """Installs the npm package openmoji, of the one version that is known here, below `into` (default: where galleries look).

    It appears there whole or not at all: npm works in a folder beside, which is moved when it has been checked. Raises `BadInput` where
    npm is missing or fails, or what it brought is not whole.
    """
    home = openmoji_folder() if into is None else into / "node_modules" / "openmoji"
    fault = fault_of(home)
    if fault is None:
        return Fetched(home, False, ATTRIBUTION)
    if into is None and home.parts[-2:-1] != ("node_modules",):
        raise BadInput(f"THEODOLITE_OPENMOJI names {home}, which {fault}; unset it, or give --into and set it to DIR/node_modules/openmoji")
    npm = shutil.which("npm")
    if npm is None:
        raise BadInput(
            f"npm was not found; install Node.js (https://nodejs.org), or unpack the npm package {PACKAGE} "
            "yourself and set THEODOLITE_OPENMOJI to its folder"
        )
    prefix = home.parent.parent
    try:
        prefix.mkdir(parents=True, exist_ok=True)
        # Beside the place where it belongs: a move within one file system is all or nothing.
        with TemporaryDirectory(prefix=".openmoji-", dir=prefix) as staging:
            brought = _install(npm, Path(staging))
            _move(brought, home, Path(staging))
    except OSError as error:
        raise BadInput(f"{PACKAGE} cannot be put into {prefix} ({error}); give another folder with --into") from error
    return Fetched(home, True, ATTRIBUTION)


def _install(npm: str, staging: Path) -> Path:
    """The package as npm brings it, checked."""
    # Nothing of the package is run.
    command = [npm, "install", "--prefix", str(staging), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        # npm ends by naming its log; what failed is said before.
        telling = [line for line in lines if "complete log of this run" not in line and not line.endswith("-debug-0.log")]
        raise BadInput(f"npm could not install {PACKAGE} (status {done.returncode}): {telling[-1] if telling else 'it said nothing'}")
    brought = staging / "node_modules" / "openmoji"
    fault = fault_of(brought)
    if fault is not None:
        raise BadInput(f"npm ended well, but what it brought {fault}; try again, or look at npm's own settings (npm config list)")
    return brought


def _move(brought: Path, home: Path, staging: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    if home.exists():
        home.rename(staging / "replaced")
    brought.rename(home)


def fault_of(home: Path) -> str | None:
    """What is wrong with an installed package, as the end of a sentence; None if it is whole and of the known version."""
    if not home.is_dir():
        return "is not there"
    try:
        version = json.loads((home / "package.json").read_text(encoding="utf-8"))["version"]
        rows = json.loads((home / "data" / "openmoji.json").read_text(encoding="utf-8"))
        wanted = {f"{row['hexcode']}.svg" for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"is not whole ({type(error).__name__}: {error})"
    if version != VERSION:
        return f"is version {version}, not {VERSION}"
    drawings = home / "color" / "svg"
    missing = wanted - {path.name for path in drawings.iterdir()} if drawings.is_dir() else wanted
    return f"is not whole ({len(missing)} of {len(wanted)} drawings are missing)" if missing or not wanted else None
