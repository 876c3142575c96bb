"""The columns of `rows.parquet`, one comparison of two answers a row: the only definition, for planning, answering and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Column:
    """Type and meaning of a column."""

    dtype: Any  # a type of Polars; beartype cannot read pl.DataType in a signature
    meaning: str


PLANNED: Mapping[str, Column] = {
    "kind": Column(
        pl.String(),
        "intervention: one factor changes; nuisance: only the nuisance seed changes (in matched pairs, the picture); "
        "perturbation: only the picture file changes (saved again, moved by one pixel, or 2 % brighter); "
        "paraphrase: only the wording changes; training: one question as asked in training, its after side repeats its before",
    ),
    "scene": Column(
        pl.Int64(), "number of the base scene, by which intervals are clustered; rows of kind training have scenes and numbers of their own"
    ),
    "factor": Column(pl.String(), "the factor that changes; empty where none does"),
    "value_before": Column(pl.String(), "value of that factor before; null where no factor changes"),
    "value_after": Column(pl.String(), "value of that factor after; null where no factor changes"),
    "query": Column(pl.String(), "the factor that is asked about; two, joined by &, in a conjunction"),
    "form": Column(pl.String(), "open, yes_no or conjunction"),
    "name": Column(pl.String(), "the query's own name, which distinguishes queries of one factor and form: shape=round, shape!=round"),
    "question_before": Column(pl.String(), "the question before"),
    "question_after": Column(pl.String(), "the question after; another wording only in rows of kind paraphrase"),
    "choices": Column(pl.List(pl.String()), "the possible answers, in the order in which they are scored; the first of equal ones wins"),
    "truth_before": Column(pl.String(), "the true answer before, one of the choices"),
    "truth_after": Column(pl.String(), "the true answer after, one of the choices"),
    "picture_before": Column(pl.Int64(), "number of the picture before in the survey's pool; example 12 is pictures/000012.png"),
    "picture_after": Column(pl.Int64(), "number of the picture after; the same number is the same picture"),
}


NAMED: Mapping[str, Column] = {
    "scene_name": Column(pl.String(), "the scene as the manifest names it; null: the pairs are not from a manifest"),
    "row": Column(pl.String(), "id of the manifest's row, or its number where it has none; null: not from a manifest"),
    "path_before": Column(pl.String(), "the picture before as the gallery names it, in a manifest its path; null: the picture was drawn"),
    "path_after": Column(
        pl.String(), "the picture after in the same way; in rows of kind perturbation, the picture that was slightly changed"
    ),
}
"""Names of given pairs; hashes of rows leave them out, so that equal pairs under other names are equal."""


def _answered(side: str) -> dict[str, Column]:
    return {
        f"answer_{side}": Column(
            pl.String(), f"the choice that is most probable {side}; null: unanswered, or several are equally so, which is not wrong"
        ),
        f"probabilities_{side}": Column(
            pl.List(pl.Float64()),
            f"probabilities {side} of the choices, in their order, normalised to sum 1; an answer read from text has 1; null: unanswered",
        ),
        f"outside_{side}": Column(pl.Float64(), f"probability {side} that the model gives to none of the choices, 0 to 1; null: not known"),
        f"total_logprob_{side}": Column(
            pl.List(pl.Float64()),
            f"log-probability {side} of each choice in nats, in their order, summed over all its tokens with the end token "
            "(with letters: of its letter); null: not known",
        ),
        f"num_tokens_{side}": Column(
            pl.List(pl.Int64()), f"tokens of each choice {side}, the end token among them: total_logprob / num_tokens is per token"
        ),
    }


ANSWERED: Mapping[str, Column] = {
    **_answered("before"),
    **_answered("after"),
    "moved": Column(pl.Boolean(), "whether the answer after differs from the answer before; null where one is missing"),
    "right": Column(pl.Boolean(), "whether both answers are the true ones; null where one is missing"),
    "variation": Column(pl.Float64(), "total variation between the two answer distributions, 0 to 1; null where one is missing"),
}
ROWS: Mapping[str, Column] = {**PLANNED, **NAMED, **ANSWERED}

COLUMNS: Mapping[str, Any] = {name: column.dtype for name, column in PLANNED.items()}
"""Types of the columns of a plan: those that are known before any answer, without names (`NAMED`)."""


def one_truth_queries(changes: pl.DataFrame) -> list[str]:
    """Queries with their forms, as "colour (open)", that have one true answer in the base pictures of several scenes; `changes` are the
    rows of pairs in which a factor changes."""
    counts = changes.group_by("query", "form", "name", maintain_order=True).agg(
        pl.col("truth_before").n_unique().alias("truths"), pl.col("scene").n_unique().alias("scenes")
    )
    same = counts.filter(pl.col("truths") == 1, pl.col("scenes") > 1).select("query", "form")
    return list(dict.fromkeys(f"{query} ({form})" for query, form in same.iter_rows()))
