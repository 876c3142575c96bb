"""Commands about questions alone: what they pin down, and which to ask next. No model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Factors, WorldOrData, app, console
from theodolite.records.errors import BadInput


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
    from theodolite.questions.coverage import measure_coverage
    from theodolite.worlds.registry import world_named

    found = world_named(world, strength or 0.0)
    result = measure_coverage(found.prior, found.policy(ask))
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    from theodolite.report.tables import coverage_table, proxy_lines

    console.print(coverage_table(result, found.space.names))
    for line in proxy_lines(result):
        console.print(line)


def _cover_data(path: Path, factors: str | None, *, as_json: bool) -> None:
    import numpy as np

    from theodolite.commands.data_tables import data_coverage_table, data_query_table
    from theodolite.questions.annotated import read_table
    from theodolite.questions.matched_pairs import measure_data_coverage

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
    from theodolite.commands.advise import advice_lines, advice_tables, advise_on

    result = advise_on(subject, budget, ask=ask, about=about, strength=strength, pictures=pictures, repeats=repeats, factors=factors)
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    for table in advice_tables(result):
        console.print(table)
    for line in advice_lines(result):
        console.print(line, soft_wrap=True)
