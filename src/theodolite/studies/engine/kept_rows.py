"""Survey rows that a study keeps of each run (`rows/KEY.parquet`), so that verdicts can be judged again under other thresholds.

Kept are the columns that judging needs. Whether an answer moved and whether both are right follow from answers and truths; texts and
probabilities of choices are left out.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from theodolite.records.parquet import read_parquet
from theodolite.records.rows import ROWS
from theodolite.records.survey import BadRecord

FOLDER, SURVEY_ROWS = "rows", "rows.parquet"
# Columns with few different values, stored as levels; `choices` are stored as one text.
LEVELS = ("kind", "factor", "query", "form", "name", "choices", "truth_before", "truth_after", "answer_before", "answer_after")
NUMBERS: Mapping[str, Any] = {  # beartype cannot read pl.DataType
    "scene": pl.Int32(), "picture_before": pl.Int32(), "picture_after": pl.Int32(),
    "variation": pl.Float32(), "outside_before": pl.Float32(), "outside_after": pl.Float32(),
}  # fmt: skip
# Probabilities are kept to four places: a sixth of the size, and far finer than any threshold.
PLACES = 4
BETWEEN = "\x1f"  # between choices, where no text has it


def compress_rows(rows: pl.DataFrame) -> bytes:
    """The kept columns of a survey's rows as the bytes of a Parquet file (zstd)."""
    kept = rows.with_columns(pl.col("choices").list.join(BETWEEN)).select(
        *(pl.col(name).cast(pl.Categorical()) for name in LEVELS), *(_number(name, kind) for name, kind in NUMBERS.items())
    )
    target = io.BytesIO()
    kept.write_parquet(target, compression="zstd", compression_level=19, statistics=False)
    return target.getvalue()


def _number(name: str, kind: Any) -> pl.Expr:
    column = pl.col(name)
    return (column.round(PLACES) if kind == pl.Float32() else column).cast(kind)


def kept_rows_path(folder: Path, key: str) -> Path:
    """Where a study's folder keeps the rows of a run."""
    return folder / FOLDER / f"{key}.parquet"


def read_kept_rows(folder: Path, key: str) -> pl.DataFrame | None:
    """A run's rows with all columns of `rows.parquet`, those that were not stored as nulls; None if the folder has none of this run.

    Raises `BadRecord` on a file that cannot be read or is without the stored columns.
    """
    path = kept_rows_path(folder, key)
    if not path.is_file():
        return None
    advice = "delete it and the run's line in runs.jsonl, and run the study again"
    stored = read_parquet(path, "the rows of a run", advice, refusal=BadRecord)
    missing = [name for name in (*LEVELS, *NUMBERS) if name not in stored.columns]
    if missing:
        raise BadRecord(f"{path} lacks {', '.join(missing)}; {advice}")
    texts = stored.with_columns(pl.col(LEVELS).cast(pl.String())).with_columns(pl.col("choices").str.split(BETWEEN))
    answered = pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null()
    right = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    derived = texts.with_columns(
        moved=pl.when(answered).then(pl.col("answer_before") != pl.col("answer_after")), right=pl.when(answered).then(right)
    )
    return derived.select(
        (pl.col(name) if name in derived.columns else pl.lit(None)).cast(column.dtype).alias(name) for name, column in ROWS.items()
    )
