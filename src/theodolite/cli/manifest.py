"""`theodolite manifest check` and `convert`: counterfactual pairs from files and published benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, app

manifests = typer.Typer(no_args_is_help=True, help="Pairs of pictures from files: check a manifest, or make one from a benchmark.")
app.add_typer(manifests, name="manifest")


@manifests.command("check")
def check_command(
    manifest: Annotated[Path, typer.Argument(help="a .jsonl or .parquet file beside its pictures", show_default=False)],
    most: Annotated[int, typer.Option(min=1, help="number of faults to print; the others are counted by kind")] = 20,
) -> None:
    """Check every row of a manifest and its pictures. Exit status 1 if any row is faulty."""
    from theodolite.worlds.manifest.read import fault_lines, read_manifest

    result = read_manifest(manifest)
    for line in fault_lines(result.faults, most):
        print(line)
    table = result.gallery.table
    pictures = len({*table["picture_before"], *table["picture_after"]})
    counts = f"{len(table):,} rows can be used: {table['scene'].n_unique():,} scenes, {pictures:,} pictures, {result.gallery.kind} pairs"
    print(f"{manifest}: {counts}; {len(result.faults):,} rows are left out")
    if result.faults:
        raise typer.Exit(1)


@manifests.command("convert")
def convert_command(
    layout: Annotated[str, typer.Argument(help="mmvp, naturalbench, coco_counterfactuals or whatsup", show_default=False)],
    source: Annotated[Path, typer.Argument(help="folder of the benchmark as its authors publish it", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder for the manifest and its pictures", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Convert a benchmark on disk into a manifest; check it afterwards."""
    from theodolite.worlds.benchmarks.formats import convert_benchmark

    converted = convert_benchmark(layout, source, out, overwrite=overwrite)
    for line in converted.lines():
        print(line)
    print(f"{converted.manifest}: {converted.num_rows:,} rows; check them with `theodolite manifest check {converted.manifest}`")
