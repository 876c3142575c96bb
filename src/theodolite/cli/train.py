"""`theodolite train`: trains a model by a named recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Seed, app
from theodolite.cli.names import RECIPES, known_recipe
from theodolite.cli.printing import console, print_line
from theodolite.records.errors import Interrupted


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(RECIPES[:-1])} or {RECIPES[-1]}", callback=known_recipe)],
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/RECIPE); an interrupted run in it is resumed")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.json:PICTURES (LLaVA format) or NAME=DATASET, once for each data name of the recipe's stages"),
    ] = None,
    ask: Annotated[
        str | None, typer.Option(help="recipes on a world: query policy, as `theodolite advise` prints it (default: shape,row)")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="recipes on a world: how often shape sets colour, 0 to 1 (default: 0.8)")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe, such as data=easy_vqa, laver=off or lora_rank=16")
    ] = None,
    max_damaged_frac: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="--data: fraction of unreadable or malformed examples that does not stop the run (default: 0.01)"),
    ] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="discard a run in the folder and start again")] = False,
) -> None:
    """Train a VLM in stages, the middle one with LaVer's visual losses. Also runs under `accelerate launch -m theodolite train ...`."""
    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes only the first prints
    out = out or Path("runs") / recipe
    print_line(f"{recipe}: training into {out}; loading PyTorch and transformers, which takes some seconds")
    from theodolite.commands.progress import Steps
    from theodolite.commands.train import train_recipe
    from theodolite.training.launch import leave_together

    stopped: Interrupted | None = None
    try:
        model = train_recipe(
            recipe,
            out,
            data or [],
            ask=ask,
            strength=strength,
            settings=settings or [],
            max_damaged_frac=max_damaged_frac,
            seed=seed,
            overwrite=overwrite,
            steps=Steps(console),
        )
        print_line(f"model: {model}")
    except Interrupted as error:
        stopped = Interrupted(error.signum, str(error))  # the error itself refers to the Trainer, which must be released first
    leave_together()
    if stopped is not None:
        raise stopped
