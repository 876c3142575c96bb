"""`theodolite report`: one HTML page of surveys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import Overwrite, app, refuse_file
from theodolite.cli.printing import print_line


@app.command("report")
def report_command(
    records: Annotated[list[Path], typer.Argument(help="folders of surveys, or of several, such as runs/tour", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write (default: report.html in the first folder)", show_default=False)
    ] = None,
    training_log: Annotated[
        Path | None, typer.Option(help="log of the training run: log.jsonl, or a checkpoint's trainer_state.json", show_default=False)
    ] = None,
    pairs_dir: Annotated[
        Path | None, typer.Option(help="folder for the original pictures of all pairs, to which the page then links", show_default=False)
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="folder that the paths of given pairs are relative to (default: as the survey recorded it)", show_default=False),
    ] = None,
    model_card: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write a model card of one survey: Markdown with a model-index", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained HTML page about one or more surveys."""
    from theodolite.commands.report import write_page
    from theodolite.records.folder import sole_writer_of

    surveys = [survey for folder in records for survey in _surveys_in(folder)]
    page = out or (records[0] if records[0].is_dir() else records[0].parent) / "report.html"
    with sole_writer_of(page, [path for path in (pairs_dir, model_card) if path is not None]):
        refuse_file(page, "HTML", overwrite=overwrite)
        refuse_file(model_card, "model card", overwrite=overwrite)
        write_page(surveys, page, pairs_dir, pictures, training_log=training_log, card=model_card, overwrite=overwrite)
    if model_card is not None:
        print_line(f"model card: {model_card}")
    print_line(f"report: {page}")
    if pairs_dir is not None:
        print_line(f"pictures: {pairs_dir}")


def _surveys_in(folder: Path) -> list[Path]:
    """The folder itself where it holds a survey, else the folders below it that do; itself where none does."""
    if not folder.is_dir() or (folder / "survey.json").is_file():
        return [folder]
    return sorted({path.parent for path in folder.rglob("survey.json") if not path.parent.name.startswith(".")}) or [folder]
