"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

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
console = Console()

WorldName = Annotated[str, typer.Argument(help="shapes or easy_vqa", show_default=False)]
Strength = Annotated[float, typer.Option(help="how strongly shape sets colour: 0 (independent) to 1")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what the output folder holds")]


@app.command()
def tour(
    world: Annotated[str, typer.Option(help="shapes or easy_vqa")] = "shapes",
    out: Annotated[Path | None, typer.Option(help="folder for records and report (default: runs/tour, or runs/tour-WORLD)")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="how many times to train every arm")] = 1,
    short: Annotated[bool, typer.Option("--short", help="a few steps and scenes only: shows that everything runs, and no effect")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train small VLMs on the same pictures under several query policies, survey each, and write a report."""
    from theodolite.studies.progress import Steps
    from theodolite.studies.tour import take_tour, tour_named

    target = out or Path("runs") / ("tour" if world == "shapes" else f"tour-{world}")
    records = take_tour(tour_named(world, seeds, short=short), target, overwrite=overwrite, steps=Steps(console))
    show_surveys(records)
    console.print(f"report: {target / 'report.html'}")


@app.command()
def coverage(
    world: WorldName,
    ask: Annotated[str, typer.Option(help="the policy: shape,colour or shape:agree or shape:odd*2,row", show_default=False)],
    strength: Strength = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What the questions alone can pin down of a world: exact, and without any model."""
    from theodolite.measurement.coverage import measure_coverage
    from theodolite.worlds.registry import world_named

    found = world_named(world, strength)
    result = measure_coverage(found.prior, found.policy(ask))
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    from theodolite.studies.table import coverage_table, proxy_lines

    console.print(coverage_table(result, found.space.names))
    for line in proxy_lines(result):
        console.print(line)


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
    batch: Annotated[int, typer.Option(min=1, help="pictures at once")] = 32,
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
    )
    show_surveys([record])
    console.print(f"record: {out / 'survey.json'}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="tiny-laver, laver-siglip2, laver-clip, laver-qwen2.5-vl or laver-llava-onevision")],
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/RECIPE); a run that was cut off goes on")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.json:PICTURES (LLaVA format) or NAME=DATASET, once for each name that the recipe's stages train on"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where the folder holds a run")] = False,
) -> None:
    """Train a VLM in stages, with LaVer's visual losses in the middle one. Goes with `accelerate launch -m theodolite train ...`, too."""
    from theodolite.studies.progress import Steps
    from theodolite.studies.train import train_recipe

    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes one speaks
    target = out or Path("runs") / recipe
    model = train_recipe(recipe, target, data or [], seed=seed, overwrite=overwrite, steps=Steps(console))
    console.print(f"model: {model}")


@app.command()
def report(
    records: Annotated[list[Path], typer.Argument(help="folders that hold a survey.json", show_default=False)],
    out: Annotated[Path, typer.Option(help="the HTML file to write", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """One self-contained HTML page from one survey or several."""
    from theodolite.report.page import write_report

    if out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of an HTML file in it")
    if out.exists() and not overwrite:
        raise BadInput(f"{out} exists; give another name, or --overwrite to replace it")
    write_report(records, out)
    console.print(f"report: {out}")


@app.command()
def world(
    name: WorldName,
    out: Annotated[Path, typer.Option(help="folder for pictures, questions and pairs", show_default=False)],
    strength: Strength = 0.0,
    ask: Annotated[str | None, typer.Option(help="the policy that asks (default: all open questions)")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="pictures drawn from the prior")] = 1000,
    scenes: Annotated[int, typer.Option(min=1, help="base scenes of pairs")] = 200,
    size: Annotated[int, typer.Option(min=32, help="side of the pictures in pixels")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Put a world on disk: pictures as PNG, questions and pairs as Parquet."""
    from theodolite.studies.disk import write_world
    from theodolite.worlds.registry import world_named

    counts = write_world(
        world_named(name, strength),
        out,
        ask,
        num_pictures=pictures,
        num_scenes=scenes,
        size=size,
        seed=seed,
        overwrite=overwrite,
    )
    console.print(f"{out}: {counts}")


def show_surveys(records: Sequence[SurveyRecord]) -> None:
    """Prints the tables of surveys."""
    from theodolite.studies.table import score_table, tour_table

    console.print(tour_table(records))
    scores = score_table(records)
    if scores is not None:
        console.print(scores)


def main() -> None:
    """Runs the command line: status 2 and one line for input that cannot be used, 130 after Ctrl-C."""
    try:
        app(standalone_mode=True)
    except BadInput as error:
        print(f"theodolite: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == 130:  # Typer's word for Ctrl-C
            print("theodolite: stopped; no record was left half-written", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
