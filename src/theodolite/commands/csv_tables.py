"""Tables of records as CSV, a row for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import polars as pl

from theodolite.records.comparison import Comparison, Measure
from theodolite.records.csv_cells import safe_cell
from theodolite.records.survey import Cell, SurveyRecord

CELL = ("factor", "query", "form", "truth_moves", "num_pairs", "num_scenes")


def cells_csv(record: SurveyRecord) -> str:
    """The cells of a survey (columns: the fields of `records.survey.Cell`), each with the verdict of its factor."""
    rows = [{**cell.model_dump(), "verdict": record.shadows.verdicts.get(cell.factor)} for cell in record.shadows.cells]
    return _csv(rows, [*Cell.model_fields, "verdict"])


def comparison_csv(comparison: Comparison) -> str:
    """The cells of a comparison: of each quantity both means, the difference with its interval, and the adjusted p-value."""
    parts = ("one", "other", "difference", "low", "high", "p_adjusted")
    columns = [*CELL, *(f"{name}_{part}" for name in get_args(Measure) for part in parts)]
    rows: list[dict[str, object]] = []
    for cell in comparison.cells:
        row: dict[str, object] = {name: getattr(cell, name) for name in CELL}
        for name in get_args(Measure):
            change = getattr(cell, name)
            estimate = change.difference
            values = (change.one, change.other, estimate.value, estimate.low, estimate.high, change.p_adjusted)
            row |= {f"{name}_{part}": value for part, value in zip(parts, values, strict=True)}
        rows.append(row)
    return _csv(rows, columns)


def _csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Rows under a head, which is there even where no row is."""
    return pl.DataFrame({name: [safe_cell(row[name]) for row in rows] for name in columns}, strict=False).write_csv()
