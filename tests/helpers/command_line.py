"""The command line, and other Python programs, in processes of their own."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from helpers import HELPERS, script_environment
from helpers.fork_server import Forked


def theodolite(*arguments: str | Path, cwd: Path | None = None, columns: int | None = None) -> subprocess.CompletedProcess[str]:
    """The finished process of a command, as a user starts it; `columns` is the width of its terminal."""
    command = [sys.executable, "-m", "theodolite", *map(str, arguments)]
    environment = None if columns is None else {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def warm_theodolite(*arguments: str | Path, columns: int | None = None) -> subprocess.CompletedProcess[str]:
    """The same of a command that loads models, with the seconds of its imports shared (`run_warm`)."""
    return run_warm("-m", "theodolite", *arguments, environment=None if columns is None else {"COLUMNS": str(columns)})


@cache
def server() -> Forked:
    """The process that all warm programs of this test process fork from."""
    forked = Forked(HELPERS / "warm_program.py", script_environment())
    atexit.register(forked.close)
    return forked


def run_warm(
    *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The finished process of `python *arguments`, forked from one that has imported torch, transformers and the like.

    `environment` is added to this process's own. Where the order or the cost of imports matters, start a process from nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        request = {
            "arguments": [str(each) for each in arguments],
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
            "stderr": str(stderr),
        }
        done = server().run(stdout, json.dumps(request))
        error_output = stderr.read_text() if stderr.exists() else ""
    return subprocess.CompletedProcess([sys.executable, *request["arguments"]], done.returncode, done.stderr, error_output)
