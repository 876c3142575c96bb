"""Probability mass outside the choices, query by query: the gate before rates of a model that answers with something else."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl


def withheld_queries(rows: pl.DataFrame, limit: float = 0.5) -> dict[tuple[str, str], float]:
    """Mean mass outside the choices, 0 to 1, of every (query, form) where it is above `limit`: its rates say little of the model's answers.

    Over the questions about the pairs (rows of kind training are of other pictures), each once a picture, even if several rows contain it.
    Questions whose mass is unknown (unanswered, or read from text) are left out, and a query of which all are is not withheld.
    """
    sides = [
        rows.filter(pl.col("kind") != "training").select(
            "query", "form", "name", "choices", question=f"question_{side}", picture=f"picture_{side}", outside=f"outside_{side}"
        )
        for side in ("before", "after")
    ]
    known = pl.concat(sides).drop_nulls("outside").unique(["query", "form", "name", "choices", "question", "picture"], maintain_order=True)
    return queries_above(known, limit)


def queries_above(questions: pl.DataFrame, limit: float) -> dict[tuple[str, str], float]:
    """Mean mass outside the choices, 0 to 1, of every (query, form) where it is above `limit`; a row of `questions` is one question."""
    means = questions.group_by("query", "form", maintain_order=True).agg(pl.col("outside").mean())
    return {(query, form): mean for query, form, mean in means.filter(pl.col("outside") > limit).iter_rows()}


def without_answers(rows: pl.DataFrame, queries: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """The rows, with the answers to these queries (query, form) taken out, as if they were unanswered: no number is made of them."""
    out = [(pl.col("query") == query) & (pl.col("form") == form) for query, form in queries]
    columns = [column for column in ("answer_before", "answer_after", "moved", "right", "variation") if column in rows.columns]
    return rows.with_columns(pl.when(~pl.any_horizontal(out)).then(pl.col(column)).alias(column) for column in columns) if out else rows
