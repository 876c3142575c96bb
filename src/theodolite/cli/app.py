"""The Typer application, its console, and the option types that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from theodolite.records.errors import BadInput

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Surveys vision-language models: which factors of a picture their answers follow, which they only guess from correlated ones, "
    "and how the training questions decide it.",
)
# Logs and pipes report no width, and tables are unreadable at the default of 80.
console = Console(width=None if sys.stdout.isatty() else 120)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
WorldOrData = Annotated[
    str, typer.Argument(metavar="WORLD|DATA", help="shapes, easy_vqa, or a Parquet file of annotated examples", show_default=False)
]
Strength = Annotated[float | None, typer.Option(help="how often shape sets colour in a world, 0 (independent, the default) to 1")]
Factors = Annotated[
    str | None, typer.Option(help="data: columns that are factors, separated by commas (default: all but query, answer and example)")
]
Seed = Annotated[int, typer.Option(min=0, help="seed of all random draws")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output")]


def refuse_file(out: Path | None, kind: str, *, overwrite: bool) -> None:
    """Raises `BadInput` if `out` is a folder, or an existing file that may not be overwritten. `kind` names the content, such as HTML."""
    if out is not None and out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a file for the {kind} in it")
    if out is not None and out.exists() and not overwrite:
        raise BadInput(f"{out} exists; give another name, or --overwrite to replace it")
