"""The command that makes a study: a grid of runs that answers one question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import app, console

SEEDS, QUICK_SEEDS = 5, 1


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="flip, lock or forecast", show_default=False)],
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"how many times to train every arm (default: {SEEDS}; {QUICK_SEEDS} if quick)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the study (default: runs/studies/NAME); what it holds is not run again")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="the main arms only, in minutes: shows the sign of the effect")] = False,
    on: Annotated[Literal["cores", "ray"], typer.Option(help="this machine's cores, or the Ray cluster that RAY_ADDRESS names")] = "cores",
    workers: Annotated[int | None, typer.Option(min=1, help="runs at a time on this machine (default: a run for each core)")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only print what it will cost")] = False,
    so_far: Annotated[bool, typer.Option("--so-far", help="run nothing; judge and draw the runs that are in the folder")] = False,
) -> None:
    """Answer one question with a grid of runs: train, survey, judge the claims, and draw the page. Started again, it goes on."""
    from theodolite.commands.progress import Steps
    from theodolite.report.study.words import claims_table
    from theodolite.studies.engine.catalogue import judge_study, make_study, plan_study, study_named

    number = seeds or (QUICK_SEEDS if quick else SEEDS)
    target = out or Path("runs") / "studies" / (f"{study_named(name).name}-quick" if quick else name)
    if plan:
        console.print(plan_study(name, range(number), target, quick=quick, workers=workers))
        return
    if so_far:
        record = judge_study(name, range(number), target, quick=quick)
    else:
        record = make_study(name, range(number), target, Steps(console), quick=quick, on=on, workers=workers)
    console.print(claims_table(record))
    for note in record.notes:
        console.print(f"note: {note}")
    console.print(f"page: {target / 'index.html'}")
