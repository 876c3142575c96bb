"""`theodolite advise`: which questions to ask next. Needs no model."""

from __future__ import annotations

from typing import Annotated

import typer

from theodolite.cli.app import AsJson, Factors, Strength, WorldOrData, app
from theodolite.cli.printing import print_line, print_table


@app.command("advise")
def advise_command(
    subject: WorldOrData,
    budget: Annotated[int, typer.Option(min=1, help="number of questions that may be added", show_default=False)],
    ask: Annotated[str | None, typer.Option(help="worlds: query policy that is in use already (default: none)")] = None,
    about: Annotated[str | None, typer.Option(help="factors whose coverage is to grow, such as shape,colour (default: all)")] = None,
    strength: Strength = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="worlds: pictures drawn from the prior (default: 12000, or all)")] = None,
    repeats: Annotated[float, typer.Option(help="how many times the same question may be asked of one picture")] = 1.0,
    factors: Factors = None,
    as_json: AsJson = False,
) -> None:
    """Advise which questions to ask next, of which scenes, and which factors need other pictures instead."""
    from theodolite.commands.advise import advice_lines, advice_tables, advise_on

    result = advise_on(subject, budget, ask=ask, about=about, strength=strength, pictures=pictures, repeats=repeats, factors=factors)
    if as_json:
        print(result.model_dump_json(indent=1))
        return
    for table in advice_tables(result):
        print_table(table)
    for line in advice_lines(result):
        print_line(line)
