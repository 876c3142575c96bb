"""`theodolite report`: one HTML page of surveys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, app, console, refuse_file


@app.command("report")
def report_command(
    records: Annotated[list[Path], typer.Argument(help="folders that hold a survey.json", show_default=False)],
    out: Annotated[Path, typer.Option(help="HTML file to write", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained HTML page about one or more surveys."""
    from theodolite.report.survey.page import write_report

    refuse_file(out, "HTML", overwrite=overwrite)
    write_report(records, out)
    console.print(f"report: {out}")
