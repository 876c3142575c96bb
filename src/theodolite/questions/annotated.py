"""Tables of annotated examples: one row per asked question, read and checked. Needs no model and no torch.

Columns: `query` (name of the query), `answer`, optionally `example` (scene or picture, the unit of independence; without it every row is
one), and factors. A row with neither query nor answer is an example without a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.parquet import read_parquet

QUERY, ANSWER, EXAMPLE = "query", "answer", "example"
MAX_VALUES = 100
MAX_FLOAT_VALUES = 20  # a float with more is a measurement, not a category


@dataclass(frozen=True, eq=False)
class Annotated:
    """Factor levels of examples, and the questions asked of them, all as indices.

    `levels[e, k]` is the index of example e's value in `values[k]`; `example`, `query` and `answer` have one entry per asked question.
    Examples without a question have levels only. Values, queries and answers are sorted.
    """

    factors: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    queries: tuple[str, ...]
    answers: tuple[str, ...]
    levels: Int[np.ndarray, "example factor"]
    example: Int[np.ndarray, " row"]
    query: Int[np.ndarray, " row"]
    answer: Int[np.ndarray, " row"]

    @property
    def num_examples(self) -> int:
        return len(self.levels)

    def __len__(self) -> int:
        return len(self.example)


def read_table(path: Path) -> pl.DataFrame:
    """The Parquet file at `path` as a table. Raises `BadInput` if it cannot be read."""
    if not path.is_file():
        raise BadInput(f"{path} is no file; give a Parquet file with one row for each asked question")
    return read_parquet(path, "Parquet", "write it with polars or pandas")


def annotate(table: pl.DataFrame, factors: Sequence[str] | None = None) -> Annotated:
    """A table as checked indices; `factors` names the factor columns (default: all but `query`, `answer` and `example`).

    Raises `BadInput`, with row (from 1) and column, on missing columns, empty cells, factors that do not vary or have too many values, and
    examples whose factors differ between rows; `UnknownName` on a factor that is no column.
    """
    names = _factor_names(table, factors)
    asked = _asked(table)
    coded = [_coded(table, name) for name in names]
    example = _examples(table)
    first = np.unique(example, return_index=True)[1]
    by_row = np.stack([levels for _, levels in coded], axis=1)
    levels = by_row[first]
    _check_one_scene_each(levels[example] != by_row, names, table)
    questions = table.filter(pl.Series(asked))
    queries, query = _levels(_text(questions, QUERY))
    answers, answer = _levels(_text(questions, ANSWER))
    return Annotated(names, tuple(values for values, _ in coded), queries, answers, levels, example[asked], query, answer)


def _factor_names(table: pl.DataFrame, factors: Sequence[str] | None) -> tuple[str, ...]:
    for name in (QUERY, ANSWER):
        if name not in table.columns:
            raise BadInput(
                f"there is no column {name!r}; found {', '.join(table.columns) or 'none'}: write one row for each asked question"
            )
    others = tuple(name for name in table.columns if name not in (QUERY, ANSWER, EXAMPLE))
    names = others if factors is None else tuple(dict.fromkeys(factors))
    if not names:
        raise BadInput("there is no factor column; add one column for each annotated factor, with its value in that row's example")
    for name in names:
        if name not in others:
            raise UnknownName("factor column", name, others or ("none",))
    return names


def _asked(table: pl.DataFrame) -> np.ndarray:
    """True for rows with a question; rows with neither query nor answer only add their example."""
    query, answer = (~_empty(table[name]) for name in (QUERY, ANSWER))
    for filled, other, name in ((query, answer, ANSWER), (answer, query, QUERY)):
        wrong = np.flatnonzero(filled & ~other)
        if len(wrong):
            raise BadInput(
                f"row {wrong[0] + 1}, column {name!r} is empty; fill it in, or leave both empty for an example without a question"
            )
    if not query.any():
        raise BadInput("no row holds a query and its answer; write one row for each asked question")
    return np.asarray(query)


def _empty(column: pl.Series) -> np.ndarray:
    empty = column.is_null()
    if column.dtype.is_float():
        empty = empty | column.is_nan().fill_null(False)
    elif column.dtype == pl.String:
        empty = empty | (column == "").fill_null(False)
    return empty.to_numpy()


def _text(table: pl.DataFrame, name: str) -> pl.Series:
    column = table[name]
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise BadInput(f"column {name!r} holds {column.dtype}; it must hold categories: text, whole numbers or true and false")
    return column.cast(pl.String)


def _coded(table: pl.DataFrame, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    text, empty = _text(table, name), np.flatnonzero(_empty(table[name]))
    if len(empty):
        raise BadInput(
            f"row {empty[0] + 1}, column {name!r} is empty; every example needs a value of every factor (write a word such as 'none')"
        )
    values, levels = _levels(text)
    most = MAX_FLOAT_VALUES if table[name].dtype.is_float() else MAX_VALUES
    if len(values) > most:
        raise BadInput(
            f"factor {name!r} has {len(values):,} values of type {table[name].dtype}; a category has at most {most}: "
            "cut it into ranges, or choose other columns with --factors"
        )
    if len(values) < 2:
        raise BadInput(f"factor {name!r} is {values[0]!r} in every row; a factor needs two values or more: leave it out with --factors")
    return values, levels


def _levels(text: pl.Series) -> tuple[tuple[str, ...], np.ndarray]:
    values = text.unique().sort()
    return tuple(values), text.replace_strict(values, np.arange(len(values)), return_dtype=pl.Int64).to_numpy()


def _examples(table: pl.DataFrame) -> np.ndarray:
    """Index of each row's example, from 0, examples sorted by name."""
    if EXAMPLE not in table.columns:
        return np.arange(len(table))
    column = table[EXAMPLE]
    empty = np.flatnonzero(_empty(column))
    if len(empty):
        raise BadInput(
            f"row {empty[0] + 1}, column {EXAMPLE!r} is empty; name each row's example, or drop the column if each row is another example"
        )
    if column.dtype.is_nested():
        raise BadInput(f"column {EXAMPLE!r} holds {column.dtype}; it must hold text or numbers")
    return (column.rank("dense").cast(pl.Int64) - 1).to_numpy()


def _check_one_scene_each(wrong: np.ndarray, names: tuple[str, ...], table: pl.DataFrame) -> None:
    if wrong.any():
        row, column = (int(at) for at in np.argwhere(wrong)[0])
        raise BadInput(
            f"row {row + 1}, column {names[column]!r} is {table[names[column]][row]!r}, but an earlier row of example "
            f"{table[EXAMPLE][row]!r} has another value; an example has one value of each factor: give its parts example names of their own"
        )
