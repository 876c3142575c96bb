"""The tables of `theodolite coverage DATA.parquet`."""

from __future__ import annotations

from rich.table import Table

from theodolite.records.data_coverage import DataCoverage
from theodolite.records.part import Estimate


def data_coverage_table(result: DataCoverage) -> Table:
    """One row per factor: coverage and pressure with intervals, share of matched examples, and the queries that depend on it."""
    counts = f"{result.num_rows:,} questions about {result.num_examples:,} examples"
    table = Table(title=f"What {counts} pin down ({result.confidence:.3g} intervals by example)")
    table.add_column("factor")
    for name in ("values", "coverage", "matched", "pressure, bits"):
        table.add_column(name, justify="right")
    table.add_column("queries that depend on it")
    for row in result.factors:
        coverage = "no matches" if row.coverage is None else _show(row.coverage)
        numbers = (str(row.num_values), coverage, f"{row.matched_frac:.0%}", _show(row.pressure_bits))
        table.add_row(row.factor, *numbers, ", ".join(row.asked_by) or "none")
    return table


def data_query_table(result: DataCoverage) -> Table:
    """One row per query: how often it is asked, and the factors on which its answer, and whether it is asked, depend."""
    table = Table(title="Factors on which answers, and asking, depend")
    table.add_column("query")
    for name in ("rows", "answers", "other than usual"):
        table.add_column(name, justify="right")
    table.add_column("answer depends on")
    table.add_column("asking depends on")
    for row in result.queries:
        numbers = (f"{row.num_rows:,}", str(row.num_answers), f"{row.noise_frac:.1%}")
        table.add_row(row.query, *numbers, ", ".join(row.depends_on) or "nothing", ", ".join(row.asked_by) or "nothing")
    return table


def _show(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f} (no interval)"
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"
