"""`theodolite compare`: the difference of two surveys on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Overwrite, app, console, refuse_file


@app.command("compare")
def compare_command(
    one: Annotated[Path, typer.Argument(help="folder of a survey", show_default=False)],
    other: Annotated[Path, typer.Argument(help="folder of another survey on the same pairs", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="also write the JSON to this file")] = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare the second survey with the first on the same pairs: what grew, what shrank, and the smallest detectable difference."""
    from theodolite.commands.compare import alone_line, comparison_table
    from theodolite.measurement.survey.compare import compare
    from theodolite.records.folder import write_whole

    refuse_file(out, "JSON", overwrite=overwrite)
    comparison = compare(one, other)
    if out is not None:
        write_whole(out, comparison.to_json())
    if as_json:
        print(comparison.to_json(), end="")
        return
    console.print(comparison_table(comparison))
    if line := alone_line(comparison):
        console.print(line)
