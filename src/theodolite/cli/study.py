"""`theodolite study`: answers one question with a grid of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import app, console

SEEDS, QUICK_SEEDS = 5, 1


@app.command("study")
def study_command(
    name: Annotated[str, typer.Argument(help="flip, lock or forecast", show_default=False)],
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"number of training runs of each arm, one a seed (default: {SEEDS}; quick: {QUICK_SEEDS})")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the study (default: runs/studies/NAME); finished runs in it are not repeated")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="only the main arms, in minutes: shows the sign of the effect")] = False,
    on: Annotated[Literal["cores", "ray"], typer.Option(help="cores of this machine, or the Ray cluster that RAY_ADDRESS names")] = "cores",
    workers: Annotated[int | None, typer.Option(min=1, help="runs at a time on this machine (default: one for each core)")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only print the expected cost")] = False,
    so_far: Annotated[bool, typer.Option("--so-far", help="start no run; judge and draw the finished runs in the folder")] = False,
) -> None:
    """Answer one question with a grid of runs: train, survey, judge the claims, draw the page. An interrupted study is resumed."""
    from theodolite.commands.progress import Steps
    from theodolite.report.study.words import claims_table
    from theodolite.studies.engine.catalogue import judge_study, make_study, plan_study, study_named

    number = seeds or (QUICK_SEEDS if quick else SEEDS)
    folder = out or Path("runs") / "studies" / (f"{study_named(name).name}-quick" if quick else name)
    if plan:
        console.print(plan_study(name, range(number), folder, quick=quick, workers=workers))
        return
    if so_far:
        record = judge_study(name, range(number), folder, quick=quick)
    else:
        record = make_study(name, range(number), folder, Steps(console), quick=quick, on=on, workers=workers)
    console.print(claims_table(record))
    for note in record.notes:
        console.print(f"note: {note}")
    console.print(f"page: {folder / 'index.html'}")
