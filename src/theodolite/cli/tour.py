"""`theodolite tour`: trains small models under several query policies, surveys each, and writes a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, app
from theodolite.cli.printing import console, print_line, print_table


@app.command("tour")
def tour_command(
    world: Annotated[str, typer.Option(help="shapes or easy_vqa")] = "shapes",
    out: Annotated[Path | None, typer.Option(help="folder for records and report (default: runs/tour, or runs/tour-WORLD)")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="number of training runs of each policy, one a seed")] = 1,
    short: Annotated[bool, typer.Option("--short", help="a few steps and scenes only: checks that all runs, shows no effect")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train small VLMs on the same pictures under several query policies, survey each, and write a report."""
    from theodolite.commands.progress import Steps
    from theodolite.report.tables import score_table, tour_table
    from theodolite.studies.tour import run_tour, tour_named

    folder = out or Path("runs") / ("tour" if world == "shapes" else f"tour-{world}")
    records = run_tour(tour_named(world, seeds, short=short), folder, overwrite=overwrite, steps=Steps(console))
    for table in (tour_table(records), score_table(records)):
        if table is not None:
            print_table(table)
    print_line(f"report: {folder / 'report.html'}")
