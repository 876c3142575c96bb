"""`theodolite compare`: the difference of two surveys on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Csv, Overwrite, app, refuse_file
from theodolite.cli.printing import print_line, print_table


@app.command("compare")
def compare_command(
    one: Annotated[Path, typer.Argument(help="folder of a survey", show_default=False)],
    other: Annotated[Path, typer.Argument(help="folder of another survey on the same pairs", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="also write the JSON to this file")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="also write a self-contained HTML page of the comparison", show_default=False)
    ] = None,
    csv: Csv = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare the second survey with the first on the same pairs: verdicts that differ, what grew, what shrank, what can be detected."""
    from theodolite.commands.compare import alone_line, comparison_html, comparison_table, verdict_change_lines, withheld_lines
    from theodolite.commands.csv_tables import comparison_csv
    from theodolite.measurement.survey.compare import compare
    from theodolite.records.folder import write_whole

    refuse_file(out, "JSON", overwrite=overwrite)
    refuse_file(html, "HTML", overwrite=overwrite)
    refuse_file(csv, "CSV", overwrite=overwrite)
    comparison = compare(one, other)
    # All is made before the first file gets its name.
    page = "" if html is None else comparison_html(one, other, comparison)
    contents = ((html, page), (csv, comparison_csv(comparison)), (out, comparison.to_json()))
    for path, content in contents:
        if path is not None:
            write_whole(path, content)
    if as_json:
        print(comparison.to_json(), end="")
        return
    for line in verdict_change_lines(comparison):
        print_line(line)
    print_table(comparison_table(comparison))
    if line := alone_line(comparison):
        print_line(line)
    for line in withheld_lines(comparison):
        print_line(line)
    if html is not None:
        print_line(f"page: {html}")
