"""The command line. Each module holds one command: it parses the options, calls a function below, and prints."""

from __future__ import annotations

import sys

# The help lists commands in the order of these imports.
# isort: off
from theodolite.cli import tour, train, dry_run, study, coverage, advise, survey, compare  # noqa: F401
from theodolite.cli import report, view, language, blind, world, build, fetch, manifest  # noqa: F401

# isort: on
from theodolite.cli.app import app
from theodolite.records.errors import BadInput, Interrupted
from theodolite.records.machine_faults import chain_of, machine_fault
from theodolite.records.stopping import STOPPING

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line. One line on stderr and a status: 2 for unusable input or a fault of the machine, 130 after Ctrl-C, 143 after
    SIGTERM."""
    STOPPING.handle()
    try:
        app(standalone_mode=True)
    except BaseException as error:
        # Typer turns a signal's error into its own exit, and libraries into errors of theirs.
        if stopped := next((each for each in chain_of(error) if isinstance(each, Interrupted)), None):
            print(f"theodolite: {stopped}", file=sys.stderr)
            sys.exit(128 + stopped.signum)
        if isinstance(error, BadInput):
            print(f"theodolite: {error}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, Exception) and (sentence := machine_fault(error)) is not None:
            print(f"theodolite: {sentence}; then run the same command again", file=sys.stderr)
            sys.exit(2)
        raise
