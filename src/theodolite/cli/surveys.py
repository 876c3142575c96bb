"""Commands that survey models, and read what surveys found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Overwrite, app, console, refuse_file
from theodolite.cli.survey_options import (
    Answers,
    Asked,
    Attention,
    Cache,
    Concurrency,
    Device,
    DryRun,
    Endpoint,
    InsideScenes,
    KeyName,
    Measures,
    Model,
    Out,
    PairsFile,
    PairsSeed,
    PerMinute,
    PictureSize,
    Precision,
    PriceIn,
    PriceOut,
    PriorStrength,
    RowsAtOnce,
    Scenes,
    Timeout,
    WorldOrGallery,
)
from theodolite.records.errors import BadInput
from theodolite.records.survey import SurveyRecord

# Options whose names differ from the words of the functions they are given to.
FLAGS = {"attention": "--attn", "timeout_s": "--timeout"}


@app.command()
def survey(
    model: Model,
    out: Out = None,
    world: WorldOrGallery = None,
    pairs: PairsFile = None,
    ask: Asked = None,
    strength: PriorStrength = None,
    scenes: Scenes = None,
    seed: PairsSeed = None,
    device: Device = None,
    dtype: Precision = None,
    batch: RowsAtOnce = None,
    measures: Measures = "shadows",
    inside_scenes: InsideScenes = None,
    attn: Attention = None,
    endpoint: Endpoint = None,
    key_env: KeyName = None,
    answers: Answers = None,
    picture_size: PictureSize = None,
    concurrency: Concurrency = None,
    per_minute: PerMinute = None,
    timeout: Timeout = None,
    cache: Cache = None,
    dry_run: DryRun = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a model about counterfactual pairs and record what moves its answers."""
    from theodolite.commands.progress import Steps
    from theodolite.commands.targets import TargetArguments

    target = out or _folder(model, world, pairs)
    matter = TargetArguments(world, pairs, ask, strength, scenes, seed)
    remote = {
        "key_env": key_env, "answers": answers, "picture_size": picture_size, "concurrency": concurrency, "per_minute": per_minute,
        "timeout_s": timeout, "cache": cache, "price_in": price_in, "price_out": price_out,
    }  # fmt: skip
    local = {"device": device, "dtype": dtype, "batch": batch, "attention": attn, "inside_scenes": inside_scenes}
    given_remote, given_local = ({name: value for name, value in each.items() if value is not None} for each in (remote, local))
    if endpoint is not None:
        from theodolite.commands.endpoint import run_endpoint_survey

        _refuse_idle(given_local, "for a model that is loaded here; an endpoint has its own")
        found = run_endpoint_survey(
            model, endpoint, target, matter, measures=measures, dry_run=dry_run, overwrite=overwrite, steps=Steps(console), **given_remote
        )
    else:
        from theodolite.commands.survey import run_survey

        _refuse_idle({**given_remote, **({"dry_run": True} if dry_run else {})}, "for a model behind an endpoint; give --endpoint URL too")
        found = run_survey(model, target, matter, measures=measures, overwrite=overwrite, steps=Steps(console), **given_local)
    if found is not None:
        _show_survey(found.record)
        console.print(f"record: {target / 'survey.json'}")


def _folder(model: str, world: str | None, pairs: Path | None) -> Path:
    """Where the record goes if nobody said: named by the model and by what it is surveyed on."""
    subject = world or (pairs.resolve().parent.name if pairs else "nothing")
    name = Path(model).resolve().name if Path(model).is_dir() else model.rpartition("/")[2]
    return Path("runs") / f"survey-{name}-{subject.replace(':', '-')}"


def _refuse_idle(given: Mapping[str, object], why: str) -> None:
    """Raises `BadInput` if options were given that mean nothing here."""
    if given:
        flags = [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given]
        raise BadInput(f"{', '.join(flags)}: {why}, or leave {'them' if len(flags) > 1 else 'it'} out")


def _show_survey(record: SurveyRecord) -> None:
    """Prints a survey's tables, and what they leave unsaid."""
    from theodolite.report.tables import survey_lines, survey_tables

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
    from theodolite.commands.compare import alone_line, compare_folders, comparison_table
    from theodolite.records.folder import write_whole

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
    from theodolite.report.survey.page import write_report

    refuse_file(out, "HTML", overwrite=overwrite)
    write_report(records, out)
    console.print(f"report: {out}")
