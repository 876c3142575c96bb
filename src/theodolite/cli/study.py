"""`theodolite study`: answers one question with a grid of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import app
from theodolite.cli.printing import console, print_line, print_table
from theodolite.records.errors import BadInput

SEEDS, QUICK_SEEDS = 5, 1


@app.command("study")
def study_command(
    name: Annotated[
        str, typer.Argument(help="flip, lock, dose, laver, rivals, frontier, unlock, advice, geometry, gram, forecast", show_default=False)
    ],
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
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="start no run; print the verdicts that change under the thresholds below, from kept rows")
    ] = False,
    leak_above_noise: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="with --rejudge: a leak counts above its noise by this (default: 0.1)")
    ] = None,
    read_frac: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="with --rejudge: a factor is read above this share of pairs (default: 0.5)")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0.5, max=0.9999, help="with --rejudge: level of the intervals (default: 0.95)")
    ] = None,
) -> None:
    """Answer one question with a grid of runs: train, survey, judge the claims, draw the page. An interrupted study is resumed."""
    from theodolite.commands.progress import Steps
    from theodolite.records.survey import Thresholds
    from theodolite.report.study.words import claims_table
    from theodolite.studies.engine.catalogue import judge_study, make_study, plan_study, rejudge_study, study_named

    given = {"leak_above_noise_frac": leak_above_noise, "read_frac": read_frac, "confidence": confidence}
    levels = {field: value for field, value in given.items() if value is not None}
    if levels and not rejudge:
        raise BadInput("--leak-above-noise, --read-frac and --confidence are thresholds of --rejudge; add it, or leave them out")
    number = seeds or (QUICK_SEEDS if quick else SEEDS)
    folder = out or Path("runs") / "studies" / (f"{study_named(name).name}-quick" if quick else name)
    if plan:
        print_table(plan_study(name, range(number), folder, quick=quick, workers=workers))
        return
    if rejudge:
        rejudged = rejudge_study(name, range(number), folder, Thresholds(**levels), quick=quick)
        print_table(rejudged.table())
        for line in rejudged.lines():
            print_line(line)
        return
    if so_far:
        record = judge_study(name, range(number), folder, quick=quick)
    else:
        record = make_study(name, range(number), folder, Steps(console), quick=quick, on=on, workers=workers)
    print_table(claims_table(record))
    for note in record.notes:
        print_line(f"note: {note}")
    print_line(f"page: {folder / 'index.html'}")
