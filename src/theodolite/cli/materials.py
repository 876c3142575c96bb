"""Commands that put pictures and models on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, WorldName, app, console
from theodolite.records.errors import BadInput

manifests = typer.Typer(no_args_is_help=True, help="Pairs of pictures that others made: turn benchmarks into a manifest, and check one.")
app.add_typer(manifests, name="manifest")


@app.command()
def world(
    name: WorldName,
    out: Annotated[Path, typer.Option(help="folder for pictures, questions and pairs", show_default=False)],
    strength: Annotated[float | None, typer.Option(help="how strongly shape sets colour: 0 (independent, the default) to 1")] = None,
    ask: Annotated[str | None, typer.Option(help="the policy that asks (default: all open questions)")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="pictures drawn from the prior (default: 1000)")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="base scenes of pairs")] = 200,
    size: Annotated[int, typer.Option(min=32, help="side of the pictures in pixels")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    pairs: Annotated[bool, typer.Option("--pairs", help="write the manifest of the pairs and its pictures only")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Put a world on disk: pictures as PNG, questions as Parquet, pairs as a manifest."""
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
    console.print(f"{out}: {counts}")


@manifests.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="a .jsonl or .parquet file beside its pictures", show_default=False)],
    most: Annotated[int, typer.Option(min=1, help="faults to print; the rest is counted by kind")] = 20,
) -> None:
    """Check a manifest row by row, its pictures too; status 1 if rows are faulty."""
    from theodolite.worlds.manifest.read import fault_lines, read_manifest

    found = read_manifest(manifest)
    for line in fault_lines(found.faults, most):
        print(line)
    table = found.gallery.table
    pictures = len({*table["picture_before"], *table["picture_after"]})
    counts = f"{len(table):,} rows can be used: {table['scene'].n_unique():,} scenes, {pictures:,} pictures, {found.gallery.kind} pairs"
    print(f"{manifest}: {counts}; {len(found.faults):,} rows are left out")
    if found.faults:
        raise typer.Exit(1)


@manifests.command()
def convert(
    layout: Annotated[str, typer.Argument(help="mmvp, naturalbench, coco_counterfactuals or whatsup", show_default=False)],
    source: Annotated[Path, typer.Argument(help="folder of the benchmark as its authors give it", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder for the manifest and its pictures", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Turn a benchmark on disk into a manifest; check it afterwards."""
    from theodolite.worlds.benchmarks.formats import convert_benchmark

    converted = convert_benchmark(layout, source, out, overwrite=overwrite)
    for line in converted.lines():
        print(line)
    print(f"{converted.manifest}: {converted.num_rows:,} rows; check them with `theodolite manifest check {converted.manifest}`")
