"""`theodolite manifest check`, `convert` and `export`: counterfactual pairs from files, from benchmarks, and for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import Overwrite, WholeHelp, app
from theodolite.cli.names import known_layout

manifests = typer.Typer(
    cls=WholeHelp,
    no_args_is_help=True,
    help="Pairs of pictures from files: check a manifest, make one from a benchmark, or export one for other tools.",
)
app.add_typer(manifests, name="manifest")


@manifests.command("check")
def check_command(
    manifest: Annotated[Path, typer.Argument(help="a .jsonl or .parquet file beside its pictures", show_default=False)],
    most: Annotated[int, typer.Option(min=1, help="number of faults to print; the others are counted by kind")] = 20,
) -> None:
    """Check every row of a manifest and its pictures, and warn of questions with one answer. Exit status 1 if any row is faulty."""
    from theodolite.records.rows import one_truth_queries
    from theodolite.worlds.manifest.read import fault_lines, read_manifest

    result = read_manifest(manifest)
    for line in fault_lines(result.faults, most):
        print(line)
    table = result.gallery.table
    pictures = len({*table["picture_before"], *table["picture_after"]})
    counts = f"{len(table):,} rows can be used: {table['scene'].n_unique():,} scenes, {pictures:,} pictures, {result.gallery.kind} pairs"
    print(f"{manifest}: {counts}; {len(result.faults):,} rows are left out")
    for query in one_truth_queries(table.filter(table["factor"] != "")):
        print(f"warning: {query} has one true answer in all base pictures, so that always saying the same is right; add bases with others")
    if result.faults:
        raise typer.Exit(1)


@manifests.command("convert")
def convert_command(
    layout: Annotated[
        str, typer.Argument(help="mmvp, naturalbench, coco_counterfactuals or whatsup", show_default=False, callback=known_layout)
    ],
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


@manifests.command("export")
def export_command(
    manifest: Annotated[Path, typer.Argument(help="a .jsonl or .parquet file beside its pictures", show_default=False)],
    layout: Annotated[
        Literal["lmms-eval", "datasets", "vlmevalkit"],
        typer.Option("--as", help="a task of lmms-eval, a data set of Hugging Face, or a table of VLMEvalKit", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="folder for the export", show_default=False)],
    prompt: Annotated[
        Literal["free", "options", "letters"],
        typer.Option(help="how questions are written: alone, with the choices listed, or with lettered choices"),
    ] = "letters",
    noise: Annotated[
        Literal["perturb", "given"],
        typer.Option(help="perturb: add slightly changed pictures where there is no noise; given: only what is there"),
    ] = "perturb",
    overwrite: Overwrite = False,
) -> None:
    """Export the pairs of a manifest for another tool; `theodolite survey --answer-log` reads its answers."""
    from theodolite.commands.export.export import export_manifest

    print(export_manifest(manifest, layout, out, prompt=prompt, noise=noise, overwrite=overwrite))
