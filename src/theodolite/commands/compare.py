"""Comparison of two surveys on disk: its table and its page. Needs neither a model nor torch."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from theodolite.measurement.survey.compare import compared_rows
from theodolite.records.comparison import CellChange, Change, Comparison
from theodolite.report.bar import Serving
from theodolite.report.comparison.page import build_comparison
from theodolite.report.stored import read_rows, read_stored
from theodolite.report.words import WORD


def comparison_html(one: Path, other: Path, comparison: Comparison, serving: Serving | None = None) -> str:
    """The page of a comparison of the surveys in two folders. Raises `BadRecord` where one is not complete."""
    surveys = [read_stored(folder) for folder in (one, other)]
    rows = [read_rows(folder) for folder in (one, other)]
    matched = compared_rows(surveys[0].record, rows[0], surveys[1].record, rows[1])
    return build_comparison(surveys[0], surveys[1], comparison, matched, serving)


def comparison_table(comparison: Comparison) -> Table:
    """One row per cell, worst change first: moved and right in both, differences with intervals, the smallest detectable difference."""
    one, other = comparison.one.title, comparison.other.title
    table = Table(
        title=f"What {other} does differently from {one} on the same pairs "
        f"({comparison.confidence:.0%} intervals by scene; false discovery rate {comparison.false_discovery_frac:.0%}; "
        f"detectable: smallest true difference of moved found with {comparison.power:.0%} power)"
    )
    for name in ("do(factor) -> answer", "cell"):
        table.add_column(name)
    for name in ("moved", "difference", "detectable", "right", "difference"):
        table.add_column(name, justify="right")
    table.add_column("change")
    for cell in sorted(comparison.cells, key=lambda cell: cell.gain):
        table.add_row(
            f"do({cell.factor}) -> {cell.query}",
            f"{'read' if cell.truth_moves else 'leak'}, {cell.form.replace('_', '/')}\n{cell.num_scenes} scenes",
            _both(cell.moved),
            _difference(cell.moved),
            "none" if cell.moved.detectable is None else f"{cell.moved.detectable:.2f}",
            _both(cell.right),
            _difference(cell.right),
            _changes(comparison, cell),
        )
    return table


def verdict_change_lines(comparison: Comparison) -> list[str]:
    """A line on each verdict that differs, worst first, or one that none does."""
    lines = [f"verdict of {each.factor}: {WORD[each.one]} -> {WORD[each.other]}" for each in comparison.verdicts]
    return lines or ["no verdict differs"]


def alone_line(comparison: Comparison) -> str | None:
    """A line on rows left out because only one survey has them; None if both have the same."""
    alone = [side for side in (comparison.one, comparison.other) if side.num_rows_alone]
    if not alone:
        return None
    words = " and ".join(f"{side.num_rows_alone:,} that only {side.title} was asked" for side in alone)
    return f"{comparison.num_rows:,} rows compared; left out: {words}"


def withheld_lines(comparison: Comparison) -> list[str]:
    """A line on each query that is not compared, since a survey withholds its rates."""
    return [
        f"not compared: {query}, since {mass:.0%} of the probability of {side.title} lies outside the choices"
        for side in (comparison.one, comparison.other)
        for query, mass in side.withheld.items()
    ]


def _both(change: Change) -> str:
    return f"{change.one:.2f} -> {change.other:.2f}"


def _difference(change: Change) -> str:
    estimate = change.difference
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.2f}\nno interval"
    return f"{estimate.value:+.2f}\n[{estimate.low:+.2f}, {estimate.high:+.2f}]"


def _changes(comparison: Comparison, cell: CellChange) -> str:
    """The cell's measures that grew or shrank, one per line."""
    key = (cell.factor, cell.query, cell.form, cell.truth_moves)
    return "\n".join(
        f"{item.measure} {word}"
        for word, items in (("grew", comparison.grew), ("shrank", comparison.shrank))
        for item in items
        if (item.factor, item.query, item.form, item.truth_moves) == key
    )
