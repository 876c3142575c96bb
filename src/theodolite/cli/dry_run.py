"""`theodolite dry-run`: what a recipe of the paper needs, without its weights."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, app
from theodolite.cli.printing import print_table

PAPER_RECIPES = ("laver-siglip2", "laver-clip", "laver-qwen2.5-vl", "laver-llava-onevision")


@app.command("dry-run")
def dry_run_command(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(help="laver-siglip2, laver-clip, laver-qwen2.5-vl or laver-llava-onevision (default: all)", show_default=False),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="number of GPUs that FSDP2 shards over")] = 8,
    as_json: AsJson = False,
) -> None:
    """Count memory and FLOPs of the paper's recipes on their real configurations, without weights, and run two steps of small twins."""
    from theodolite.commands.dry_run import as_values, dry_runs, memory_table

    runs = dry_runs(recipes or PAPER_RECIPES, gpus)
    if as_json:
        print(json.dumps([as_values(run) for run in runs], indent=1))
        return
    for run in runs:
        print_table(memory_table(run))
