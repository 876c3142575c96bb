"""Commands that survey models, and read what surveys found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import AsJson, Overwrite, app, console, refuse_file
from theodolite.records.errors import BadInput
from theodolite.records.survey import SurveyRecord

# Options whose names differ from the words of the functions they are given to.
FLAGS = {"attention": "--attn", "timeout_s": "--timeout"}


@app.command()
def survey(
    model: Annotated[
        str, typer.Argument(help="folder or hub name of a Hugging Face VLM; with --endpoint, its name there", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="folder for the record", show_default=False)],
    world: Annotated[
        str | None, typer.Option(help="shapes or easy_vqa: pairs are drawn from it; or a gallery such as openmoji:skin_tone")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="or a file of pairs: a manifest, JSONL or Parquet (docs/manifest.md)")] = None,
    ask: Annotated[
        str | None,
        typer.Option(help="the policy to judge by (default: as trained, else all open questions)"),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="strength of the training prior (default: as trained, else 0)")] = None,
    scenes: Annotated[
        int | None, typer.Option(min=2, help="base scenes of pairs drawn from a world (default: 200); of a gallery all")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of pairs drawn from a world (default: 0)")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: cpu)")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="precision of the weights (default: float32)")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="rows of tokens at once (default: as memory allows)")] = None,
    measures: Annotated[
        str,
        typer.Option(help="beside the answers: ladder,likeness,allocation,geometry,fisher,causal,gap,identifiability, or all"),
    ] = "shadows",
    inside_scenes: Annotated[int | None, typer.Option(min=2, help="scenes that measures of the inside use (default: 500)")] = None,
    attn: Annotated[Literal["sdpa", "eager"] | None, typer.Option(help="attention back end (default: sdpa)")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="ask a model behind an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1"),
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="endpoint: environment variable that holds the key (default: OPENAI_API_KEY)")
    ] = None,
    answers: Annotated[
        Literal["auto", "logprobs", "text"] | None,
        typer.Option(help="endpoint: how answers are read (default: auto, which is logprobs where the server offers them)"),
    ] = None,
    picture_size: Annotated[int | None, typer.Option(min=16, help="endpoint: side of the pictures in pixels (default: 224)")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="endpoint: requests at once (default: 8)")] = None,
    per_minute: Annotated[float | None, typer.Option(min=0.01, help="endpoint: most requests a minute (default: no limit)")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.01, help="endpoint: seconds to wait for an answer (default: 120)")] = None,
    cache: Annotated[Path | None, typer.Option(help="endpoint: file of answers (default: OUT.responses.sqlite)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="endpoint: print what it would cost, ask nothing, write nothing")] = False,
    price_in: Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens sent")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens received")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a model about counterfactual pairs and record what moves its answers."""
    from theodolite.studies.matter import Matter
    from theodolite.studies.progress import Steps

    matter = Matter(world, pairs, ask, strength, scenes, seed)
    remote = {
        "key_env": key_env, "answers": answers, "picture_size": picture_size, "concurrency": concurrency, "per_minute": per_minute,
        "timeout_s": timeout, "cache": cache, "price_in": price_in, "price_out": price_out,
    }  # fmt: skip
    local = {"device": device, "dtype": dtype, "batch": batch, "attention": attn, "inside_scenes": inside_scenes}
    given_remote, given_local = ({name: value for name, value in each.items() if value is not None} for each in (remote, local))
    if endpoint is not None:
        from theodolite.studies.endpoint import survey_endpoint

        _refuse_idle(given_local, "for a model that is loaded here; an endpoint has its own")
        found = survey_endpoint(
            model, endpoint, out, matter, measures=measures, dry_run=dry_run, overwrite=overwrite, steps=Steps(console), **given_remote
        )
    else:
        from theodolite.studies.single import survey_from_disk

        _refuse_idle({**given_remote, **({"dry_run": True} if dry_run else {})}, "for a model behind an endpoint; give --endpoint URL too")
        found = survey_from_disk(model, out, matter, measures=measures, overwrite=overwrite, steps=Steps(console), **given_local)
    if found is not None:
        _show_survey(found)
        console.print(f"record: {out / 'survey.json'}")


def _refuse_idle(given: Mapping[str, object], why: str) -> None:
    """Raises `BadInput` if options were given that mean nothing here."""
    if given:
        flags = [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given]
        raise BadInput(f"{', '.join(flags)}: {why}, or leave {'them' if len(flags) > 1 else 'it'} out")


def _show_survey(record: SurveyRecord) -> None:
    """Prints a survey's tables, and what they leave unsaid."""
    from theodolite.studies.table import survey_lines, survey_tables

    for table in survey_tables(record):
        console.print(table)
    for line in survey_lines(record):
        console.print(line, highlight=False)


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
