"""Tables of annotated examples: what is read from them, and what is refused with row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from theodolite.questions.annotated import MAX_FLOAT_VALUES, MAX_VALUES, annotate, read_table
from theodolite.records.errors import BadInput, UnknownName

TABLE = pl.DataFrame(
    {
        "example": ["p2", "p1", "p1", "p3"],
        "query": ["shape", "shape", "colour", None],
        "answer": ["round", "square", "red", None],
        "shape": ["round", "square", "square", "round"],
        "lit": [True, False, False, True],
        "count": [3, 1, 1, 2],
    }
)


def test_rows_examples_and_levels_are_those_of_the_table() -> None:
    found = annotate(TABLE)
    assert found.factors == ("shape", "lit", "count")
    assert found.values == (("round", "square"), ("false", "true"), ("1", "2", "3"))
    assert (found.queries, found.answers) == (("colour", "shape"), ("red", "round", "square"))
    assert found.levels.tolist() == [[1, 0, 0], [0, 1, 2], [0, 1, 1]]  # p1, p2, p3
    assert (found.example.tolist(), found.query.tolist(), found.answer.tolist()) == ([1, 0, 0], [1, 1, 0], [1, 2, 0])


def test_an_example_of_which_nothing_was_asked_counts_as_an_example_and_not_as_a_row() -> None:
    found = annotate(TABLE)
    assert (found.num_examples, len(found)) == (3, 3)


def test_without_a_column_of_examples_every_row_is_one() -> None:
    found = annotate(TABLE.drop("example").head(3))
    assert found.num_examples == 3 and found.example.tolist() == [0, 1, 2]


def test_only_the_factors_that_are_named_are_taken_and_in_that_order() -> None:
    assert annotate(TABLE.with_columns(note=pl.lit("same")), ["count", "shape", "count"]).factors == ("count", "shape")
    with pytest.raises(UnknownName, match=r"'hue'.*shape, lit, count"):
        annotate(TABLE, ["hue"])
    with pytest.raises(UnknownName, match="'answer'"):
        annotate(TABLE, ["answer"])


def test_a_file_is_read_back_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "data.parquet")
    assert read_table(tmp_path / "data.parquet").equals(TABLE)
    (tmp_path / "text.parquet").write_text("query,answer")
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        read_table(tmp_path / "text.parquet")
    with pytest.raises(BadInput, match="is no file"):
        read_table(tmp_path / "missing.parquet")


def many(values: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"query": ["shape"] * len(values), "answer": ["a", "b"] * (len(values) // 2), "width": values})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.drop("query"), "no column 'query'; found example, answer"),
        (TABLE.drop("answer"), "no column 'answer'"),
        (TABLE.select("example", "query", "answer"), "no factor column"),
        (TABLE.with_columns(answer=pl.Series(["round", None, "red", None])), "row 2, column 'answer' is empty"),
        (TABLE.with_columns(answer=pl.Series(["round", "square", "red", "red"])), "row 4, column 'query' is empty"),
        (TABLE.with_columns(query=pl.Series(["shape", "", "colour", None])), "row 2, column 'query' is empty"),
        (TABLE.tail(1), "no row holds a query"),
        (TABLE.clear(), "no row holds a query"),
        (TABLE.with_columns(example=pl.Series(["p2", "p1", None, "p3"])), "row 3, column 'example' is empty"),
        (TABLE.with_columns(count=pl.Series([3, 1, 1, None])), "row 4, column 'count' is empty"),
        (TABLE.with_columns(count=pl.Series([0.5, float("nan"), 1.0, 2.0])), "row 2, column 'count' is empty"),
        (TABLE.with_columns(count=pl.lit(7)), "factor 'count' is '7' in every row"),
        (TABLE.with_columns(count=pl.Series([3, 1, 2, 2])), "row 3, column 'count' is 2, but an earlier row of example 'p1'"),
        (TABLE.with_columns(count=pl.Series([[1], [2], [2], [1]])), "column 'count' holds List"),
        (many(pl.Series(np.arange(MAX_FLOAT_VALUES + 2) / 7)), f"'width' has {MAX_FLOAT_VALUES + 2} values of type Float64"),
        (many(pl.Series([f"file {i}" for i in range(MAX_VALUES + 2)])), f"'width' has {MAX_VALUES + 2} values of type String"),
    ],
)
def test_what_cannot_be_used_is_named_with_row_and_column(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        annotate(table)


def test_floats_with_few_values_are_categories() -> None:
    assert annotate(many(pl.Series([0.5, 1.5] * 4))).values == (("0.5", "1.5"),)
