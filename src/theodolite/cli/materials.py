"""Commands that put pictures and models on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, Strength, WorldName, app, console


@app.command()
def world(
    name: WorldName,
    out: Annotated[Path, typer.Option(help="folder for pictures, questions and pairs", show_default=False)],
    strength: Strength = 0.0,
    ask: Annotated[str | None, typer.Option(help="the policy that asks (default: all open questions)")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="pictures drawn from the prior")] = 1000,
    scenes: Annotated[int, typer.Option(min=1, help="base scenes of pairs")] = 200,
    size: Annotated[int, typer.Option(min=32, help="side of the pictures in pixels")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Put a world on disk: pictures as PNG, questions and pairs as Parquet."""
    from theodolite.studies.disk import write_world
    from theodolite.worlds.registry import world_named

    counts = write_world(
        world_named(name, strength),
        out,
        ask,
        num_pictures=pictures,
        num_scenes=scenes,
        size=size,
        seed=seed,
        overwrite=overwrite,
    )
    console.print(f"{out}: {counts}")
