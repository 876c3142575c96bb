"""What commands print: tables and lines that no width cuts off."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDTH_OF_LOGS = 120  # logs and pipes report no width, and tables are hard to read at rich's default of 80
UNLIMITED = 100_000


def console_of_output() -> Console:
    """The console of standard output: as wide as COLUMNS says or the terminal is, else `WIDTH_OF_LOGS`."""
    width_is_known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if width_is_known else WIDTH_OF_LOGS)


console = console_of_output()


def print_line(text: str) -> None:
    """Prints a line as it is: paths and commands stay whole, and brackets are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Prints a table; where even its longest words do not fit side by side, row by row, each column in a line of its own."""
    if Measurement.get(console, console.options.update(width=UNLIMITED), table).minimum <= console.width:
        console.print(table)
        return
    for line in stacked_lines(table):
        console.print(line, markup=False, highlight=False, overflow="fold")


def stacked_lines(table: Table) -> list[str]:
    """The title, each row as lines of `column: value` without empty values, and the caption."""
    heads = [" ".join(str(column.header).split()) for column in table.columns]
    lines = [str(table.title)] if table.title else []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        values = [" ".join(str(cell).split()) for cell in cells]
        lines.append("")
        lines += [f"{'' if at == 0 else '  '}{head}: {value}" for at, (head, value) in enumerate(zip(heads, values, strict=True)) if value]
    return [*lines, *(["", str(table.caption)] if table.caption else [])]
