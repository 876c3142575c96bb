"""Rows of a survey page by page, straight from its Parquet file: a page of a million rows takes a fraction of a second."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

import polars as pl

from theodolite.records.errors import BadInput
from theodolite.records.parquet import BadParquet, check_parquet
from theodolite.records.survey import BadRecord
from theodolite.report.survey.outcomes import outcome_of_row
from theodolite.report.survey.pairs_address import Outcome

PAGE_ROWS = 50
AT = "at"
# What a page of rows needs: without the lists of choices, whose decoding takes most of the time.
SHOWN = (
    "kind", "scene", "factor", "value_before", "value_after", "query", "form", "name", "question_before", "question_after", "truth_before",
    "truth_after", "scene_name", "row", "path_before", "path_after", "answer_before", "answer_after", "moved", "right", "variation",
)  # fmt: skip
FILTERED = ("kind", "factor", "query", "form")
SEARCHED = ("question_before", "question_after", "answer_before", "answer_after", "scene_name", "row", "path_before", "path_after")
# Rows nearer than this are read at one go.
NEAR = 5000
MAX_REMEMBERED = 16


@dataclass(frozen=True)
class RowFilter:
    """Conditions that rows meet together; an empty one is none. `text` is part of a question, an answer, or a scene's, row's or picture's
    name, case ignored, or the number of the scene."""

    kind: str = ""
    factor: str = ""
    query: str = ""
    form: str = ""
    outcome: str = ""
    text: str = ""


@dataclass(frozen=True, eq=False)
class RowPage:
    """Some rows with their places in the file (`at`) and outcomes; `first` counts the rows before them that meet the conditions."""

    rows: tuple[Mapping[str, Any], ...]
    first: int
    num_matching: int
    num_rows: int
    number: int
    num_pages: int


@lru_cache(MAX_REMEMBERED)
def _check_once(path: Path, changed_ns: int, num_bytes: int) -> None:
    """Reads a file through once while it stays as it is: later readings are Polars' own, of which a damaged page can end the process."""
    check_parquet(path)


class RowTable:
    """The rows in one file. Raises `BadRecord` where it cannot be read as rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading():
            status = path.stat()
            _check_once(path, status.st_mtime_ns, status.st_size)
        self._matching = lru_cache(MAX_REMEMBERED)(self._find)
        self._with_text = lru_cache(MAX_REMEMBERED)(self._find_text)

    @property
    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.path, glob=False, parallel="prefiltered")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        with self._reading():
            names = tuple(self._scan.collect_schema().names())
        if missing := [name for name in ("kind", "scene", "factor", "moved", "right") if name not in names]:
            raise BadRecord(f"{self.path.name} has no column {missing[0]}; survey the model again")
        return names

    @cached_property
    def num_rows(self) -> int:
        with self._reading():
            return int(self._scan.select(pl.len()).collect().item())

    @cached_property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The values of each column that is filtered by, sorted."""
        with self._reading():
            distinct = pl.collect_all([self._scan.select(pl.col(name).drop_nulls().unique()) for name in FILTERED])
        return {name: tuple(sorted(frame[name])) for name, frame in zip(FILTERED, distinct, strict=True)}

    def page(self, conditions: RowFilter, number: int = 1) -> RowPage:
        """Page `number`, from 1; the last one where there are fewer. Raises `BadInput` for a value that no row has."""
        at = self._matching(conditions)
        num_pages = max(1, -(-len(at) // PAGE_ROWS))
        number = min(max(number, 1), num_pages)
        first = (number - 1) * PAGE_ROWS
        rows = self._rows_at(at.slice(first, PAGE_ROWS))
        return RowPage(tuple(rows.iter_rows(named=True)), first, len(at), self.num_rows, number, num_pages)

    def row(self, at: int) -> Mapping[str, Any]:
        """One row with all of its columns and its outcome. Raises `BadInput` if there is no such row."""
        if not 0 <= at < self.num_rows:
            raise BadInput(f"there is no row {at}; rows are numbered from 0 to {self.num_rows - 1}")
        with self._reading():
            return self._scan.with_row_index(AT).slice(at, 1).with_columns(outcome=outcome_of_row()).collect().row(0, named=True)

    def _rows_at(self, at: pl.Series) -> pl.DataFrame:
        """The rows at these places, ascending: by one slice where they lie near each other, else by a scan of what a page shows."""
        names = [AT, *(name for name in SHOWN if name in self.columns)]
        with self._reading():
            if at.is_empty():
                return self._scan.with_row_index(AT).select(names).head(0).with_columns(outcome=pl.lit("")).collect()
            first, last = int(at[0]), int(at[-1])
            near = self._scan.with_row_index(AT)
            near = near.slice(first, last - first + 1) if last - first < NEAR else near
            return near.select(names).filter(pl.col(AT).is_in(at.implode())).with_columns(outcome=outcome_of_row()).collect()

    def _find(self, conditions: RowFilter) -> pl.Series:
        """The places of the rows that meet the conditions, ascending."""
        wanted = [pl.col(name) == self._known(name, value) for name in FILTERED if (value := getattr(conditions, name))]
        if conditions.outcome:
            if conditions.outcome not in get_args(Outcome):
                raise BadInput(f"{conditions.outcome!r} is no outcome of a row; outcomes are {', '.join(get_args(Outcome))}")
            wanted.append(outcome_of_row() == conditions.outcome)
        scan = self._scan.with_row_index(AT).filter(*wanted) if wanted else self._scan.with_row_index(AT)
        with self._reading():
            places = scan.select(AT).collect()[AT]
        return places if not conditions.text else places.filter(places.is_in(self._with_text(conditions.text).implode()))

    def _find_text(self, text: str) -> pl.Series:
        """The places of the rows of which some searched column holds the text.

        Each column is filtered on its own: Polars then compares the file's dictionary of values instead of every row.
        """
        scan = self._scan.with_row_index(AT)
        pattern = f"(?i){re.escape(text)}"
        scans = [scan.filter(pl.col(name).str.contains(pattern)) for name in SEARCHED if name in self.columns]
        if text.isascii() and text.isdigit() and len(text) < 19:
            scans.append(scan.filter(pl.col("scene") == int(text)))
        with self._reading():
            return pl.concat([places[AT] for places in pl.collect_all([each.select(AT) for each in scans])]).unique()

    def _known(self, name: str, value: str) -> str:
        """A value that some row has. Raises `BadInput`."""
        if value not in self.values[name]:
            raise BadInput(f"no row has {value!r} as its {name}; there is {', '.join(filter(None, self.values[name]))}")
        return value

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises `BadRecord` for an error of the file."""
        try:
            yield
        except (OSError, BadParquet, pl.exceptions.PolarsError) as error:
            first = str(error).partition("\n")[0]
            raise BadRecord(f"{self.path.name} cannot be read as the rows of a survey ({first}); survey the model again") from error
