"""Surveys read from disk: the record, its run record, and the pictures of its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from theodolite.records.errors import first_fault
from theodolite.records.parquet import read_parquet
from theodolite.records.reading import MARK
from theodolite.records.rows import ROWS
from theodolite.records.survey import BadRecord, RunRecord, SurveyRecord, read_survey
from theodolite.records.thumbnails import COLUMNS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class StoredSurvey:
    """One survey; `pictures` holds PNG bytes by the file name in the record, without those that are missing on disk; `rows` the answered
    rows (`records.rows`), None where they were not kept; `thumbnails` WebP files by the picture's number in the rows, worst pairs first."""

    record: SurveyRecord
    run: RunRecord | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    rows: pl.DataFrame | None = None
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)

    def picture(self, name: str) -> bytes | None:
        return self.pictures.get(name)


@runtime_checkable
class Storable(Protocol):
    """A survey in memory that can be shown, such as `measurement.survey.result.SurveyResult`."""

    def stored(self) -> StoredSurvey: ...


class CoverageFacts(BaseModel):
    """The coverage fields that the page shows; maps are keyed by factor, proxies by "factor->query"."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    coverage: dict[str, float] = {}
    coverage_limit: dict[str, float] = {}
    reach: dict[str, float] = {}
    pressure_bits: dict[str, float] = {}
    proxy_bits: dict[str, float] = {}
    cause: dict[str, str] = {}
    agreement_frac: float | None = None

    def largest_proxy_bits(self, factor: str, about: str) -> float | None:
        """Largest proxy of a factor for one query about the factor `about`, in bits; None if no asked query is about it."""
        proxies = [
            bits
            for key, bits in self.proxy_bits.items()
            for source, _, query in [key.partition("->")]
            if source == factor and _about(query) == about
        ]
        return max(proxies, default=None)


def _about(query: str) -> str:
    """The factor that a query is about, from its name: "shape!=round" is about shape."""
    return "&".join(part.partition("=")[0].removesuffix("!") for part in query.split("&"))


def read_stored(folder: Path) -> StoredSurvey:
    """The survey in a record's folder (or its survey.json). Raises `BadRecord` on an invalid survey or run record."""
    record = read_survey(folder)
    home = folder if folder.is_dir() else folder.parent
    names = {name for example in record.examples for name in (example.picture_before, example.picture_after)}
    words = None if record.inside is None else record.inside.words
    names |= {shown.picture for shown in (words.shown if words else ())}
    pictures = {name: data for name in sorted(names) if (data := _read_picture(home, name)) is not None}
    rows = read_rows(home) if (home / "rows.parquet").is_file() else None
    return StoredSurvey(record, read_run(home / "run.json"), pictures, rows, thumbnails_by_number(read_thumbnails(home)))


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows in a survey's folder (or beside its `survey.json`), some columns or all. Raises `BadRecord`."""
    path = (folder if folder.is_dir() else folder.parent) / "rows.parquet"
    if not path.is_file():
        raise BadRecord(f"{path.parent} holds no rows.parquet; give a folder as it was written")
    table = read_parquet(path, "the rows of a survey", "survey the model again", columns=columns, refusal=BadRecord)
    try:
        rows = table.with_columns(pl.col(name).cast(ROWS[name].dtype) for name in table.columns if name in ROWS)
        known = [pl.col("choices").list.contains(pl.col(name)) for name in ("truth_before", "truth_after")]
        reason = None
        if {"choices", "truth_before", "truth_after"} <= set(rows.columns) and not rows.select(pl.all_horizontal(known).all()).item():
            reason = "a truth is none of its row's choices"
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
    if reason is not None:
        raise BadRecord(f"{path} cannot be read as the rows of a survey ({reason}); survey the model again")
    return rows


def read_thumbnails(folder: Path) -> pl.DataFrame | None:
    """The small pictures in a survey's folder (columns: `records.thumbnails`); None without any. Raises `BadRecord`."""
    path = folder / "thumbnails.parquet"
    if not path.is_file():
        return None
    table = read_parquet(path, "thumbnails", "remove it, or survey the model again", refusal=BadRecord)
    try:
        return table.select(pl.col(name).cast(dtype) for name, dtype in COLUMNS.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadRecord(f"{path} cannot be read as thumbnails ({error}); remove it, or survey the model again") from error


def thumbnails_by_number(table: pl.DataFrame | None) -> dict[int, bytes]:
    """WebP files by the picture's number, in the table's order; without what is not WebP, since a page would embed it."""
    if table is None:
        return {}
    return {number: data for number, data in table.iter_rows() if data[:4] == b"RIFF" and data[8:12] == b"WEBP"}


def coverage_facts(record: SurveyRecord) -> CoverageFacts | None:
    """The record's coverage; None where it has none. Raises `BadRecord` if it is invalid."""
    if record.coverage is None:
        return None
    try:
        return CoverageFacts.model_validate(record.coverage, from_attributes=True)
    except ValidationError as error:
        raise BadRecord(f"coverage of {record.title!r}: {first_fault(error)}; survey the model again") from error


def read_run(path: Path) -> RunRecord | None:
    """The run record in a run.json; None if there is no such file. Raises `BadRecord` if it is invalid."""
    if not path.is_file():
        return None
    try:
        return RunRecord.model_validate_json(path.read_bytes().removeprefix(MARK))
    except ValidationError as error:
        raise BadRecord(f"{path} is no run record: {first_fault(error)}; remove it, or survey the model again") from error


def _read_picture(home: Path, name: str) -> bytes | None:
    """The bytes of a PNG file by its name in the record; None if it is missing, no PNG, or outside the record's folder."""
    path = (home / name).resolve()
    if not path.is_relative_to(home.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    return data if data.startswith(PNG_SIGNATURE) else None
