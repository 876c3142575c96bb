"""`theodolite study flip` with four runs of seconds in place of its grid: `python tiny_study.py ARGUMENTS`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the processes of the grid import this module by its name there

from helpers.grid_runs import tiny_grid
from theodolite import cli
from theodolite.studies.engine import catalogue
from theodolite.studies.engine.execute import Run


def short_grid(seeds: Sequence[int], quick: bool) -> tuple[Run, ...]:
    return tiny_grid(len(seeds))


def main() -> None:
    catalogue.STUDIES = {"flip": replace(catalogue.STUDIES["flip"], grid=short_grid)}
    sys.argv = ["theodolite", "study", "flip", *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    main()
