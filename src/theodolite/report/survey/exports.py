"""Files that a reader can save from the survey page: answered rows and cells as CSV, the records as JSON, packed into the page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from theodolite.records.csv_cells import safe_cell
from theodolite.records.survey import Cell
from theodolite.report.bar import Export
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.words import show_count

# More rows than this would make the page larger than a mail or a browser takes kindly.
MAX_PACKED_BYTES = 2_500_000
# Rows beyond this exceed it however alike they are, and to write and pack a million of them takes minutes.
MAX_PACKED_ROWS = 200_000
# Lists by token, which nothing on the page uses, are half of the rows' bytes; rows.parquet has them.
LEFT_OUT = ("total_logprob_before", "num_tokens_before", "total_logprob_after", "num_tokens_after")


def page_exports(arms: Sequence[SurveyArm], stem: str) -> tuple[Export, ...]:
    """Rows, cells and records of all arms, in this order; file names begin with `stem`."""
    return (
        _rows_export(arms, stem),
        Export("cells", "Cells (CSV)", "reads and leaks with intervals", f"{stem}-cells.csv", "text/csv", Export.pack(cells_csv(arms))),
        Export("record", "Record (JSON)", "everything measured", f"{stem}.json", "application/json", Export.pack(records_json(arms))),
    )


def cells_csv(arms: Sequence[SurveyArm]) -> str:
    """One line for each cell of each model: the label of the model, then the fields of `Cell`."""
    names = tuple(Cell.model_fields)
    return _csv(
        ("model", *names), ((arm.label, *(getattr(cell, name) for name in names)) for arm in arms for cell in arm.record.shadows.cells)
    )


def rows_csv(arms: Sequence[SurveyArm]) -> str:
    """One line for each answered row of each model whose rows were stored: its label, then the columns of `records.rows`; lists as JSON."""
    tables = [(arm.label, arm.stored.rows) for arm in arms if arm.stored.rows is not None]
    names = tuple(dict.fromkeys(name for _, rows in tables for name in rows.columns if name not in LEFT_OUT))
    return _csv(
        ("model", *names),
        ((label, *(_text(row.get(name)) for name in names)) for label, rows in tables for row in rows.iter_rows(named=True)),
    )


def records_json(arms: Sequence[SurveyArm]) -> str:
    """The record of one model as in its survey.json; of several, a list of records."""
    if len(arms) == 1:
        return arms[0].record.to_json()
    return json.dumps([arm.record.model_dump(mode="json") for arm in arms], indent=1) + "\n"


def _rows_export(arms: Sequence[SurveyArm], stem: str) -> Export:
    num_rows = sum(arm.stored.rows.height for arm in arms if arm.stored.rows is not None)
    packed = Export.pack(rows_csv(arms)) if 0 < num_rows <= MAX_PACKED_ROWS else None
    note = f"{show_count(num_rows)} answers, without log-probabilities by token"
    if num_rows == 0:
        note = "no rows.parquet beside the record"
    elif packed is None or len(packed) > MAX_PACKED_BYTES:
        packed, note = None, f"{show_count(num_rows)} rows are too many for a page; rows.parquet beside the record holds them"
    return Export("rows", "Rows (CSV)", note, f"{stem}-rows.csv", "text/csv", packed)


def _csv(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe_cell, names))
    writer.writerows(map(safe_cell, line) for line in lines)
    return text.getvalue()


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
