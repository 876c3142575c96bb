"""`theodolite study lock --out OUT` over a small grid whose runs are taken from a file: `python disk_study.py HOME OUT`."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from helpers.grid_runs import Pretended, tiny_grid, tiny_run
from theodolite.records.study import Figure
from theodolite.stats.claims import Rule, Statement
from theodolite.studies.engine import catalogue
from theodolite.studies.engine.execute import Run, execute
from theodolite.studies.engine.grid import Outcome
from theodolite.studies.engine.study import FinishedRuns, claim_level, moved_frac_of, point

STATEMENT = Statement("leak", "The answer follows colour.", "a test", Rule("above", 0.5), "a share", 3)
LEAK = moved_frac_of("colour", "shape", truth_moves=False)


def draw(finished: FinishedRuns) -> tuple[Figure, ...]:
    points = tuple(mark for name in ("agree", "all") for mark in point("leak", name, name, finished.arm(name), LEAK))
    figure = Figure(
        name="leak", title="Leak", caption="By arm.", x_title="arm", y_title="share", y_range=(0.0, 1.0), joined=False, points=points
    )
    return (figure,)


def main() -> None:
    torch.set_num_threads(1)
    home, out = Path(sys.argv[1]), sys.argv[2]
    if not (home / "outcome").exists():
        (home / "outcome").write_bytes(pickle.dumps(execute(tiny_run())))
    pretended = Pretended(home)

    def backend(runs: Sequence[Run]) -> Iterator[Outcome]:
        for run in runs:
            yield run, pretended.renamed(run)

    grid = tiny_grid(2)
    study = replace(
        catalogue.STUDIES["lock"],
        grid=lambda seeds, quick: grid,
        judge=lambda finished: (claim_level(STATEMENT, finished.arm("agree"), LEAK),),
        draw=draw,
        reads=(),
    )
    catalogue.STUDIES = {"lock": study}
    catalogue.on_cores = lambda workers: backend
    from theodolite import cli

    sys.argv = ["theodolite", "study", "lock", "--out", out, "--workers", "1"]
    cli.main()


if __name__ == "__main__":
    main()
