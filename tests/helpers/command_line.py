"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def theodolite(*arguments: str | Path, cwd: Path | None = None, columns: int | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process; `columns` is the width of its terminal."""
    command = [sys.executable, "-m", "theodolite", *map(str, arguments)]
    environment = None if columns is None else {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
