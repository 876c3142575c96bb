"""`theodolite blind`: pairs of pictures that one encoder separates and another does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli import options
from theodolite.cli.app import Overwrite, app
from theodolite.cli.printing import console, print_line, print_table


@app.command("blind")
def blind_command(
    pictures: Annotated[Path, typer.Argument(help="folder of pictures, searched with its subfolders", show_default=False)],
    same: Annotated[
        str,
        typer.Option(help="encoder to which a pair looks the same: a Hugging Face vision model, a VLM, conv or lite0", show_default=False),
    ],
    different: Annotated[str, typer.Option(help="encoder to which the pair looks different", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder for the manifest, its pictures and a contact sheet", show_default=False)],
    high: Annotated[float, typer.Option(min=-1, max=1, help="least cosine of a pair under --same")] = 0.95,
    low: Annotated[float, typer.Option(min=-1, max=1, help="largest cosine of a pair under --different")] = 0.6,
    most: Annotated[int, typer.Option(min=1, help="largest number of pairs")] = 300,
    per_picture: Annotated[int, typer.Option(min=0, help="largest number of pairs with the same picture; 0: no limit")] = 3,
    device: options.Device = None,
    dtype: options.Precision = None,
    batch: Annotated[int, typer.Option(min=1, help="pictures in a batch")] = 32,
    vectors: Annotated[Path | None, typer.Option(help="folder with vectors for the next search (default: theodolite's cache)")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find pairs of pictures that look the same to one encoder and different to another, and write a manifest to be labelled."""
    from theodolite.commands.blind import SHEET, BlindSearch, blind_lines, blind_tables, mine_blind_pairs
    from theodolite.commands.progress import Steps

    record = mine_blind_pairs(
        pictures,
        same,
        different,
        out,
        BlindSearch(high, low, most, per_picture or None),
        device=device,
        dtype=dtype,
        batch=batch,
        vectors=vectors,
        overwrite=overwrite,
        steps=Steps(console),
    )
    for table in blind_tables(record):
        print_table(table)
    for line in blind_lines(record):
        print_line(line)
    if record.pairs:
        manifest = out / "manifest.jsonl"
        print_line(f"look at {out / SHEET}, fill in {manifest}, then: theodolite manifest check {manifest}")
