"""`theodolite coverage`: what questions alone can pin down. Needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Factors, Strength, WorldOrData, app
from theodolite.cli.printing import print_line, print_table
from theodolite.records.errors import BadInput


@app.command("coverage")
def coverage_command(
    world: WorldOrData,
    ask: Annotated[str | None, typer.Option(help="worlds: query policy, such as shape,colour or shape:agree or shape:odd*2,row")] = None,
    strength: Strength = None,
    factors: Factors = None,
    as_json: AsJson = False,
) -> None:
    """Compute what the questions alone can pin down: exactly for a world, with intervals for annotated examples. Needs no model."""
    if Path(world).suffix == ".parquet":
        if ask is not None or strength is not None:
            raise BadInput("--ask and --strength apply to a world; a table of examples has its own questions, so leave them out")
        _cover_data(Path(world), factors, as_json=as_json)
        return
    if factors is not None:
        raise BadInput("--factors names columns of a Parquet file; a world has its own factors, so leave it out")
    if ask is None:
        raise BadInput("coverage of a world needs a query policy; give one, such as --ask shape,colour")
    from theodolite.questions.coverage import measure_coverage
    from theodolite.worlds.registry import world_named

    correlated = world_named(world, strength or 0.0)
    result = measure_coverage(correlated.prior, correlated.policy(ask))
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    from theodolite.report.tables import coverage_table, proxy_lines

    print_table(coverage_table(result, correlated.space.names))
    for line in proxy_lines(result):
        print_line(line)


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
    print_table(data_coverage_table(result))
    print_table(data_query_table(result))
