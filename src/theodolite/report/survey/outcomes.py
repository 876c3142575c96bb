"""The outcome of every answered pair: whether its answer moved, whether it is right, and how severely it failed."""

from __future__ import annotations

from typing import Any

import polars as pl

from theodolite.report.survey.pairs_address import OUTCOME_WORD

PAIR_KINDS = ("intervention", "nuisance", "perturbation", "paraphrase")
NEEDED = ("kind", "scene", "factor", "query", "form", "truth_before", "truth_after", "answer_before", "answer_after", "moved", "right")
OUTCOMES = pl.Enum(list(OUTCOME_WORD))


def outcome_of_row() -> pl.Expr:
    """The outcome of a row (`pairs_address.Outcome`), from its kind, truths, `moved` and `right`."""
    changes, moved, right = pl.col("truth_before") != pl.col("truth_after"), pl.col("moved"), pl.col("right")
    steady = pl.when(right).then(pl.lit("steady-right")).otherwise(pl.lit("steady-wrong"))
    return (
        pl.when(moved.is_null())
        .then(pl.lit("unanswered"))
        .when(pl.col("kind") != "intervention")
        .then(pl.when(moved).then(pl.lit("noise")).otherwise(steady))
        .when(changes & moved)
        .then(pl.when(right).then(pl.lit("moved-right")).otherwise(pl.lit("moved-wrong")))
        .when(changes)
        .then(pl.lit("missed"))
        .when(moved)
        .then(pl.lit("leaked"))
        .otherwise(steady)
    )


def with_outcomes(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of pairs, without those of training, with the columns `outcome` and `severity`, 0 to 3.

    Severity exceeds 2 where an answer moved although the truth stays, or stayed although the truth changes: 2 and the total variation
    between both answer distributions, or 2 and one less it (`measurement.survey.result.SurveyResult.failures`). It is 1 to 2 where the
    answers are wrong otherwise: 1 and the mean probability of what is not true. Then come unanswered pairs, 1, and 0 to 1, by that
    same mean, those that are right.
    """
    pairs = rows.filter(pl.col("kind").is_in(PAIR_KINDS))
    pairs = pairs.with_columns(outcome=outcome_of_row().cast(OUTCOMES), untrue=_untrue(pairs))
    failed = {"leaked": pl.col("variation"), "noise": pl.col("variation"), "missed": 1 - pl.col("variation")}
    severity: Any = pl.when(pl.col("outcome") == "unanswered").then(1.0)
    for outcome, value in failed.items():
        severity = severity.when(pl.col("outcome") == outcome).then(2 + value.fill_null(1.0))
    wrong = pl.col("outcome").is_in(["moved-wrong", "steady-wrong"])
    return pairs.with_columns(severity=severity.when(wrong).then(1 + pl.col("untrue")).otherwise(pl.col("untrue"))).drop("untrue")


def _untrue(pairs: pl.DataFrame) -> pl.Series:
    """The mean probability of the choices that are not true, 0 to 1; 1 where it is not known."""
    names = ("choices", "truth_before", "truth_after", "probabilities_before", "probabilities_after")
    values = []
    for choices, *truths, before, after in pairs.select(names).iter_rows():
        known = before is not None and after is not None
        true = sum(side[choices.index(truth)] for side, truth in zip((before, after), truths, strict=True)) if known else 0.0
        values.append(min(max(1 - true / 2, 0.0), 1.0))
    return pl.Series(values, dtype=pl.Float64)
