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
# Logs and pipes have no width of their own, and tables are unreadable at 80.
console = Console(width=None if sys.stdout.isatty() else 120)

WorldName = Annotated[str, typer.Argument(help="shapes or easy_vqa", show_default=False)]
Strength = Annotated[float, typer.Option(help="how strongly shape sets colour: 0 (independent) to 1")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
WorldOrData = Annotated[
    str, typer.Argument(metavar="WORLD|DATA", help="shapes, easy_vqa, or a Parquet file of annotated examples", show_default=False)
]
Factors = Annotated[str | None, typer.Option(help="data: columns that are factors (default: all but query, answer and example)")]
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
    world: WorldOrData,
    ask: Annotated[str | None, typer.Option(help="worlds: the policy: shape,colour or shape:agree or shape:odd*2,row")] = None,
    strength: Annotated[float | None, typer.Option(help="worlds: how strongly shape sets colour, 0 (the default) to 1")] = None,
    factors: Factors = None,
    as_json: AsJson = False,
) -> None:
    """What the questions alone can pin down: of a world exactly, of annotated examples with intervals; without any model."""
    if Path(world).suffix == ".parquet":
        if ask is not None or strength is not None:
            raise BadInput("--ask and --strength: of a world only; a table of examples brings its own questions, so leave them out")
        _cover_data(Path(world), factors, as_json=as_json)
        return
    if factors is not None:
        raise BadInput("--factors names columns of a Parquet file; a world brings its own factors, so leave it out")
    if ask is None:
        raise BadInput("say what is asked: --ask shape,colour for example")
    from theodolite.measurement.coverage import measure_coverage
    from theodolite.worlds.registry import world_named

    found = world_named(world, strength or 0.0)
    result = measure_coverage(found.prior, found.policy(ask))
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    from theodolite.studies.table import coverage_table, proxy_lines

    console.print(coverage_table(result, found.space.names))
    for line in proxy_lines(result):
        console.print(line)


def _cover_data(path: Path, factors: str | None, *, as_json: bool) -> None:
    import numpy as np

    from theodolite.measurement.annotated import read_table
    from theodolite.measurement.matched import measure_data_coverage
    from theodolite.studies.data_coverage import data_coverage_table, data_query_table

    names = None if factors is None else [name.strip() for name in factors.split(",") if name.strip()]
    result = measure_data_coverage(read_table(path), names, np.random.default_rng(0), 0.95)
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    console.print(data_coverage_table(result))
    console.print(data_query_table(result))


@app.command()
def advise(
    subject: WorldOrData,
    budget: Annotated[int, typer.Option(min=1, help="questions that may be added", show_default=False)],
    ask: Annotated[str | None, typer.Option(help="worlds: the policy of what is asked already (default: nothing)")] = None,
    about: Annotated[str | None, typer.Option(help="for the sake of which factors, such as shape,colour (default: all)")] = None,
    strength: Annotated[float | None, typer.Option(help="worlds: how strongly shape sets colour, 0 to 1 (default: 0)")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="worlds: pictures drawn from the prior (default: 12000, or all)")] = None,
    repeats: Annotated[float, typer.Option(help="how often one picture may be asked the same question")] = 1.0,
    factors: Factors = None,
    as_json: AsJson = False,
) -> None:
    """Which questions to ask of which scenes next, and which factors only other pictures can cure."""
    from theodolite.studies.advise import advice_lines, advice_tables, advise_on

    result = advise_on(subject, budget, ask=ask, about=about, strength=strength, pictures=pictures, repeats=repeats, factors=factors)
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    for table in advice_tables(result):
        console.print(table)
    for line in advice_lines(result):
        console.print(line, soft_wrap=True)


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
def train(
    recipe: Annotated[str, typer.Argument(help="tiny-laver, laver-siglip2, laver-clip, laver-qwen2.5-vl or laver-llava-onevision")],
    out: Annotated[Path | None, typer.Option(help="folder of the run (default: runs/RECIPE); a run that was cut off goes on")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.json:PICTURES (LLaVA format) or NAME=DATASET, once for each name that the recipe's stages train on"),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(help="recipes on a world: the policy of its questions, as `theodolite advise` gives it (default: shape,row)"),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="recipes on a world: how strongly shape sets colour (default: 0.8)")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of everything drawn")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where the folder holds a run")] = False,
) -> None:
    """Train a VLM in stages, with LaVer's visual losses in the middle one. Goes with `accelerate launch -m theodolite train ...`, too."""
    from theodolite.studies.progress import Steps
    from theodolite.studies.train import train_recipe

    console.quiet = os.environ.get("RANK", "0") != "0"  # of several processes one speaks
    target = out or Path("runs") / recipe
    model = train_recipe(recipe, target, data or [], ask=ask, strength=strength, seed=seed, overwrite=overwrite, steps=Steps(console))
    console.print(f"model: {model}")


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

    _refuse_file(out, "JSON", overwrite=overwrite)
    found = compare_folders(one, other)
    if out is not None:
        write_whole(out, found.to_json())
    if as_json:
        print(found.to_json(), end="")
        return
    console.print(comparison_table(found))
    if line := alone_line(found):
        console.print(line)


def _refuse_file(out: Path | None, kind: str, *, overwrite: bool) -> None:
    if out is not None and out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a file for the {kind} in it")
    if out is not None and out.exists() and not overwrite:
        raise BadInput(f"{out} exists; give another name, or --overwrite to replace it")


@app.command()
def report(
    records: Annotated[list[Path], typer.Argument(help="folders that hold a survey.json", show_default=False)],
    out: Annotated[Path, typer.Option(help="the HTML file to write", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """One self-contained HTML page from one survey or several."""
    from theodolite.report.page import write_report

    _refuse_file(out, "HTML", overwrite=overwrite)
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
