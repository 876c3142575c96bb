"""The result of a survey: its record, the answered rows, the example pictures; saved to a folder and loaded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image
from rich.console import Group

from theodolite.records.folder import whole_folder
from theodolite.records.survey import BadRecord, RunRecord, SurveyRecord
from theodolite.records.writing import png_bytes, write_survey
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.tables import survey_tables

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class SurveyResult:
    """A finished survey: the record, the answered rows behind it, the pictures that it names, and how the run went."""

    record: SurveyRecord
    rows: pl.DataFrame
    pictures: Mapping[str, Picture]
    run: RunRecord
    # One row for each picture of a file (`records.pictures`); None where pictures were drawn.
    picture_table: pl.DataFrame | None = None

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Writes `survey.json`, `rows.parquet`, `run.json`, the example pictures, and `pictures.parquet` for pictures of files; the
        folder is complete or not there at all.

        Raises `FolderTaken` if it holds files and may not be overwritten.
        """
        with whole_folder(Path(folder), overwrite=overwrite) as unfinished:
            write_survey(unfinished, self.record, self.rows, self.pictures, self.run, self.picture_table)

    def stored(self) -> StoredSurvey:
        """The same as a report reads it from disk."""
        return StoredSurvey(self.record, self.run, {name: png_bytes(picture) for name, picture in self.pictures.items()})

    def table(self) -> Group:
        """The verdicts and rates as tables for the terminal (rich)."""
        return Group(*survey_tables(self.record))

    def to_polars(self) -> pl.DataFrame:
        """The answered rows (columns: `records.rows.COLUMNS` and the answers)."""
        return self.rows

    def to_pandas(self) -> Any:
        """The answered rows as a pandas data frame."""
        return self.rows.to_pandas()

    def failures(self, factor: str | None = None, query: str | None = None) -> pl.DataFrame:
        """The pairs that failed, worst first: *leaked* (the answer moved, its truth did not) or *missed* (the reverse).

        `severity`, 0 to 1, is the total variation between both answer distributions where the answer leaked, and 1 less it where it missed.
        Pairs of which a side is unanswered are left out. `factor` and `query` restrict to one factor that moves and one asked about.
        """
        pairs = self.rows.filter((pl.col("kind") == "intervention") & pl.col("moved").is_not_null())
        for column, value in (("factor", factor), ("query", query)):
            if value is not None:
                pairs = pairs.filter(pl.col(column) == value)
        truth_moves = pl.col("truth_before") != pl.col("truth_after")
        failed = pairs.filter(pl.col("moved") != truth_moves).with_columns(
            failure=pl.when(truth_moves).then(pl.lit("missed")).otherwise(pl.lit("leaked")),
            severity=pl.when(truth_moves).then(1 - pl.col("variation")).otherwise(pl.col("variation")),
        )
        return failed.sort("severity", descending=True, nulls_last=True, maintain_order=True)

    def with_run(self, command: str, seconds: Mapping[str, float]) -> SurveyResult:
        """The same with the run's command named, and the seconds of further parts beside its own."""
        parts = {**{name: round(value, 3) for name, value in seconds.items()}, **self.run.seconds_by_part}
        run = self.run.model_copy(update={"command": command, "seconds_by_part": parts})
        return replace(self, run=run)


def load_survey(folder: str | Path) -> SurveyResult:
    """The survey in a folder, as `SurveyResult.save` wrote it. Raises `BadRecord` where a file is missing or of another version."""
    stored = read_stored(Path(folder))
    if stored.run is None:
        raise BadRecord(f"{folder} holds no run.json; give a folder as it was written")
    pictures = {name: np.asarray(Image.open(BytesIO(png)).convert("RGB")) for name, png in stored.pictures.items()}
    table = Path(folder) / "pictures.parquet"
    return SurveyResult(stored.record, read_rows(Path(folder)), pictures, stored.run, pl.read_parquet(table) if table.is_file() else None)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows in a survey's folder (or beside its `survey.json`), some columns or all. Raises `BadRecord`."""
    path = (folder if folder.is_dir() else folder.parent) / "rows.parquet"
    if not path.is_file():
        raise BadRecord(f"{path.parent} holds no rows.parquet; give a folder as it was written")
    try:
        return pl.read_parquet(path, columns=None if columns is None else list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadRecord(f"{path} cannot be read as the rows of a survey ({error}); survey the model again") from error
