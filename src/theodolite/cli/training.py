"""Commands that train: one recipe, or a tour of several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, app, console, show_surveys


@app.command()
def tour(
    world: Annotated[str, typer.Option(help="shapes or easy_vqa")] = "shapes",
    out: Annotated[Path | None, typer.Option(help="folder for records and report (default: runs/tour, or runs/tour-WORLD)")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="how many times to train every arm")] = 1,
    short: Annotated[bool, typer.Option("--short", help="a few steps and scenes only: shows that everything runs, and no effect")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train small VLMs on the same pictures under several query policies, survey each, and write a report."""
    from theodolite.commands.progress import Steps
    from theodolite.studies.tour import run_tour, tour_named

    target = out or Path("runs") / ("tour" if world == "shapes" else f"tour-{world}")
    records = run_tour(tour_named(world, seeds, short=short), target, overwrite=overwrite, steps=Steps(console))
    show_surveys(records)
    console.print(f"report: {target / 'report.html'}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="tiny-laver, smol, laver-siglip2, laver-clip, laver-qwen2.5-vl or laver-llava-onevision")],
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/RECIPE); a run that was cut off goes on")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.json:PICTURES (LLaVA format) or NAME=DATASET, once for each name that the recipe's stages train on"),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(help="recipes on a world: the policy of its questions, as `theodolite advise` gives it (default: shape,row)"),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="recipes on a world: how strongly shape sets colour (default: 0.8)")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe, such as data=easy_vqa, laver=off or lora_rank=16")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where the folder holds a run")] = False,
) -> None:
    """Train a VLM in stages, with LaVer's visual losses in the middle one. Goes with `accelerate launch -m theodolite train ...`, too."""
    from theodolite.commands.progress import Steps
    from theodolite.commands.train import train_recipe
    from theodolite.training.launch import leave_together

    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes one speaks
    target = out or Path("runs") / recipe
    model = train_recipe(
        recipe,
        target,
        data or [],
        ask=ask,
        strength=strength,
        settings=settings or [],
        seed=seed,
        overwrite=overwrite,
        steps=Steps(console),
    )
    console.print(f"model: {model}")
    leave_together()
