"""Which factors the answer to a query depends on, taken from true answers, and the pairs that contradict the rest."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from theodolite.records.survey import Mislabelled

MOVING_FRAC = 0.05
MOST_LISTED = 100


def infer_dependence(rows: pl.DataFrame, declared: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The factors that each query of these rows depends on, by its name: as declared, else those that move its truth.

    Those are the factors that move it in 5 % of its pairs or more. A single pair whose truth moves is more likely a wrong label than a
    dependence.
    """
    shares = _moving(rows).filter(pl.col("moving_frac") >= MOVING_FRAC)
    names = rows.filter(pl.col("kind") == "intervention")["name"].unique(maintain_order=True).to_list()
    inferred = {name: frozenset(shares.filter(pl.col("name") == name)["factor"]) for name in names}
    return {**inferred, **{name: factors for name, factors in declared.items() if name in inferred}}


def contradictions(rows: pl.DataFrame, dependence: Mapping[str, frozenset[str]]) -> tuple[tuple[Mislabelled, ...], int]:
    """The pairs whose true answers contradict nearly all others of their query (at most 100), and their number.

    The truth of a query that does not depend on the factor moves; or it stands still, as in at most 5 % of the pairs of an open query that
    depends on it.
    """
    pairs = rows.filter(pl.col("kind") == "intervention").with_columns(truth_moves=pl.col("truth_before") != pl.col("truth_after"))
    dependent = pl.struct("name", "factor").map_elements(
        lambda key: key["factor"] in dependence.get(key["name"], frozenset()), return_dtype=pl.Boolean
    )
    rare = pl.col("moving_frac").is_between(1 - MOVING_FRAC, 1, closed="left") & (pl.col("form") == "open")
    odd = (
        pairs.join(_moving(rows), on=["name", "factor"], how="left", maintain_order="left")
        .with_columns(dependent=dependent)
        .filter((pl.col("truth_moves") & ~pl.col("dependent")) | (~pl.col("truth_moves") & pl.col("dependent") & rare))
    )
    listed = [
        Mislabelled(
            scene=row["scene"],
            scene_name=row.get("scene_name"),
            row=row.get("row"),
            factor=row["factor"],
            query=row["name"],
            question=row["question_before"],
            truth_before=row["truth_before"],
            truth_after=row["truth_after"],
        )
        for row in odd.head(MOST_LISTED).iter_rows(named=True)
    ]
    return tuple(listed), len(odd)


def _moving(rows: pl.DataFrame) -> pl.DataFrame:
    """`moving_frac`: the share of pairs in which the truth moves, by name and factor."""
    pairs = rows.filter(pl.col("kind") == "intervention")
    return pairs.group_by("name", "factor", maintain_order=True).agg(moving_frac=(pl.col("truth_before") != pl.col("truth_after")).mean())
