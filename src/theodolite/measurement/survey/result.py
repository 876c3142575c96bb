"""The result of a survey: its record, the answered rows, the example pictures; saved to a folder and loaded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from rich.console import Group

from theodolite.records.folder import whole_folder, write_whole
from theodolite.records.parquet import read_parquet
from theodolite.records.survey import BadRecord, RunRecord, SurveyRecord
from theodolite.records.writing import png_bytes, write_survey
from theodolite.report.stored import StoredSurvey, read_rows, read_stored, read_thumbnails, thumbnails_by_number
from theodolite.report.survey.page import build_page
from theodolite.report.tables import survey_tables
from theodolite.worlds.decoding import UNDECODABLE, decode_file, strict_pillow

PAGE = "report.html"
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
    # Small pictures of pairs for the report (`records.thumbnails`).
    thumbnails: pl.DataFrame | None = None

    def save(self, folder: str | Path, *, overwrite: bool = False, with_page: bool = False) -> None:
        """Writes `survey.json`, `rows.parquet`, `run.json`, the example pictures, `thumbnails.parquet`, and `pictures.parquet` for
        pictures of files, and with `with_page` its report as `report.html`; the folder is complete or not there at all.

        Raises `FolderTaken` if it holds files and may not be overwritten.
        """
        page = build_page([self.stored()]) if with_page else None
        with whole_folder(Path(folder), overwrite=overwrite) as unfinished:
            write_survey(unfinished, self.record, self.rows, self.pictures, self.run, self.picture_table, self.thumbnails)
            if page is not None:
                write_whole(unfinished / PAGE, page)

    def stored(self) -> StoredSurvey:
        """The same as a report reads it from disk."""
        pictures = {name: png_bytes(picture) for name, picture in self.pictures.items()}
        return StoredSurvey(self.record, self.run, pictures, self.rows, thumbnails_by_number(self.thumbnails))

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

    def with_run(self, command: str, seconds: Mapping[str, float], step: int | None = None) -> SurveyResult:
        """The same with the run's command and training step named, and the seconds of further parts beside its own."""
        parts = {**{name: round(value, 3) for name, value in seconds.items()}, **self.run.seconds_by_part}
        run = self.run.model_copy(update={"command": command, "seconds_by_part": parts, "step": step})
        return replace(self, run=run)


def load_survey(folder: str | Path) -> SurveyResult:
    """The survey in a folder, as `SurveyResult.save` wrote it. Raises `BadRecord` where a file is missing or of another version."""
    stored = read_stored(Path(folder))
    if stored.run is None:
        raise BadRecord(f"{folder} holds no run.json; give a folder as it was written")
    pictures = {name: _picture(Path(folder) / name, png) for name, png in stored.pictures.items()}
    table = Path(folder) / "pictures.parquet"
    rows = read_rows(Path(folder)) if stored.rows is None else stored.rows
    picture_table = read_parquet(table, "pictures of a survey", "survey the model again", refusal=BadRecord) if table.is_file() else None
    return SurveyResult(stored.record, rows, pictures, stored.run, picture_table, read_thumbnails(Path(folder)))


def _picture(path: Path, png: bytes) -> np.ndarray:
    """The pixels (height width 3) of a PNG file's bytes. Raises `BadRecord` if they are damaged or cut off."""
    try:
        with strict_pillow():
            return np.asarray(decode_file(BytesIO(png), ("PNG",)).image)
    except UNDECODABLE as error:
        raise BadRecord(f"{path} cannot be read as a picture ({error}); survey the model again") from None
