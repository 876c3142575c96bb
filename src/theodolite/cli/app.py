"""The application, its console, and the options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from theodolite.records.errors import BadInput
from theodolite.records.survey import SurveyRecord

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Surveys vision-language models: which parts of the visual world their questions made them map, and where they only know routes.",
)
# Logs and pipes have no width of their own, and tables are unreadable at 80.
console = Console(width=None if sys.stdout.isatty() else 120)

WorldName = Annotated[str, typer.Argument(help="shapes or easy_vqa", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
WorldOrData = Annotated[
    str, typer.Argument(metavar="WORLD|DATA", help="shapes, easy_vqa, or a Parquet file of annotated examples", show_default=False)
]
Factors = Annotated[str | None, typer.Option(help="data: columns that are factors (default: all but query, answer and example)")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what the output folder holds")]


def refuse_file(out: Path | None, kind: str, *, overwrite: bool) -> None:
    """Raises `BadInput` if a file cannot be written there: a folder, or a file that may not go."""
    if out is not None and out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a file for the {kind} in it")
    if out is not None and out.exists() and not overwrite:
        raise BadInput(f"{out} exists; give another name, or --overwrite to replace it")


def show_surveys(records: Sequence[SurveyRecord]) -> None:
    """Prints the tables of surveys."""
    from theodolite.report.tables import score_table, tour_table

    console.print(tour_table(records))
    scores = score_table(records)
    if scores is not None:
        console.print(scores)
