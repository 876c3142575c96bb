"""The command line: parse, call, print."""

from __future__ import annotations

import sys

# The help lists commands in the order of these imports.
# isort: off
from theodolite.cli import training
from theodolite.cli import studies
from theodolite.cli import questions
from theodolite.cli import surveys
from theodolite.cli import language
from theodolite.cli import blind
from theodolite.cli import materials
from theodolite.cli import build
from theodolite.cli import fetch

# isort: on
from theodolite.cli.app import app, console, show_surveys
from theodolite.records.errors import BadInput

__all__ = [
    "app",
    "blind",
    "build",
    "console",
    "fetch",
    "language",
    "main",
    "materials",
    "questions",
    "show_surveys",
    "studies",
    "surveys",
    "training",
]


def main() -> None:
    """Runs the command line: status 2 and one line for input that cannot be used, 130 after Ctrl-C."""
    try:
        app(standalone_mode=True)
    except BadInput as error:
        print(f"theodolite: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == 130:  # Typer's word for Ctrl-C
            print("theodolite: stopped; no record was left half-written", file=sys.stderr)
        raise
