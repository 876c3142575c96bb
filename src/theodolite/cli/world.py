"""`theodolite world`: writes pictures, questions and pairs of a world to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, Seed, Strength, app
from theodolite.cli.names import known_world
from theodolite.cli.printing import print_line
from theodolite.records.errors import BadInput


@app.command("world")
def world_command(
    name: Annotated[str, typer.Argument(help="shapes or easy_vqa", show_default=False, callback=known_world)],
    out: Annotated[Path, typer.Option(help="folder for pictures, questions and pairs", show_default=False)],
    strength: Strength = None,
    ask: Annotated[str | None, typer.Option(help="query policy (default: all open questions)")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="number of pictures drawn from the prior (default: 1000)")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="number of base scenes of the pairs")] = 200,
    size: Annotated[int, typer.Option(min=32, help="side of the pictures in pixels")] = 64,
    seed: Seed = 0,
    pairs: Annotated[bool, typer.Option("--pairs", help="write only the manifest of the pairs and its pictures")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a world to disk: pictures as PNG, questions as Parquet, pairs as a manifest."""
    from theodolite.commands.world import write_world
    from theodolite.worlds.registry import world_named

    if pairs and (strength is not None or pictures is not None):
        raise BadInput(
            "--pairs: pairs come from the independent prior and no other picture is written; leave --strength and --pictures out"
        )
    counts = write_world(
        world_named(name, strength or 0.0),
        out,
        ask,
        num_pictures=pictures or 1000,
        num_scenes=scenes,
        size=size,
        seed=seed,
        overwrite=overwrite,
        pairs_only=pairs,
    )
    print_line(f"{out}: {counts}")
