"""The command line. Each module holds one command: it parses the options, calls a function below, and prints."""

from __future__ import annotations

import sys

# The help lists commands in the order of these imports.
# isort: off
from theodolite.cli import tour, train, dry_run, study, coverage, advise, survey, compare  # noqa: F401
from theodolite.cli import report, language, blind, world, build, fetch, manifest  # noqa: F401

# isort: on
from theodolite.cli.app import app
from theodolite.records.errors import BadInput

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line. Exit status 2 and one line on stderr for unusable input, 130 after Ctrl-C."""
    try:
        app(standalone_mode=True)
    except BadInput as error:
        print(f"theodolite: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == 130:  # Typer's status after Ctrl-C
            print("theodolite: stopped; no record was left half-written", file=sys.stderr)
        raise
