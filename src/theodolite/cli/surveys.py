"""Commands that survey models, and read what surveys found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import AsJson, Overwrite, app, console, refuse_file, show_surveys


@app.command()
def survey(
    model: Annotated[str, typer.Argument(help="folder or hub name of a Hugging Face VLM", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder for the record", show_default=False)],
    world: Annotated[str | None, typer.Option(help="shapes or easy_vqa: pairs are drawn from it")] = None,
    pairs: Annotated[Path | None, typer.Option(help="or a Parquet file of pairs, as `theodolite world` writes it")] = None,
    ask: Annotated[
        str | None,
        typer.Option(help="the policy to judge by (default: as trained, else all open questions)"),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="strength of the training prior (default: as trained, else 0)")] = None,
    scenes: Annotated[int | None, typer.Option(min=2, help="base scenes of pairs drawn from a world (default: 200)")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of pairs drawn from a world (default: 0)")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="precision of the weights")] = "float32",
    batch: Annotated[int | None, typer.Option(min=1, help="rows of tokens at once (default: as memory allows)")] = None,
    measures: Annotated[
        str,
        typer.Option(help="beside the answers: ladder,likeness,allocation,geometry,fisher,causal,gap,identifiability, or all"),
    ] = "shadows",
    inside_scenes: Annotated[int | None, typer.Option(min=2, help="scenes that measures of the inside use (default: 500)")] = None,
    attn: Annotated[Literal["sdpa", "eager"], typer.Option(help="attention back end")] = "sdpa",
    overwrite: Overwrite = False,
) -> None:
    """Ask a model about counterfactual pairs and record what moves its answers."""
    from theodolite.studies.progress import Steps
    from theodolite.studies.single import survey_from_disk

    record = survey_from_disk(
        model,
        out,
        world=world,
        pairs=pairs,
        ask=ask,
        strength=strength,
        num_scenes=scenes,
        seed=seed,
        device=device,
        dtype=dtype,
        batch=batch,
        attention=attn,
        overwrite=overwrite,
        steps=Steps(console),
        measures=measures,
        inside_scenes=inside_scenes,
    )
    show_surveys([record])
    console.print(f"record: {out / 'survey.json'}")


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(help="folder of a survey", show_default=False)],
    other: Annotated[Path, typer.Argument(help="folder of another survey on the same pairs", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="also write the JSON to this file")] = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """How the second survey differs from the first on the same pairs: what grew, what shrank, and how many scenes would tell."""
    from theodolite.records.folder import write_whole
    from theodolite.studies.compare import alone_line, compare_folders, comparison_table

    refuse_file(out, "JSON", overwrite=overwrite)
    found = compare_folders(one, other)
    if out is not None:
        write_whole(out, found.to_json())
    if as_json:
        print(found.to_json(), end="")
        return
    console.print(comparison_table(found))
    if line := alone_line(found):
        console.print(line)


@app.command()
def report(
    records: Annotated[list[Path], typer.Argument(help="folders that hold a survey.json", show_default=False)],
    out: Annotated[Path, typer.Option(help="the HTML file to write", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """One self-contained HTML page from one survey or several."""
    from theodolite.report.page import write_report

    refuse_file(out, "HTML", overwrite=overwrite)
    write_report(records, out)
    console.print(f"report: {out}")
