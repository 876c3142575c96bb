"""Galleries: pairs of pictures that exist already, with the questions to ask of them. No prior, hence no coverage; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import UInt8

from theodolite.worlds.factors import Factor
from theodolite.worlds.world import PairKind

# The RGB pictures of some names, all at one size: (picture, size, size, 3).
Render = Callable[[Sequence[str], int], UInt8[np.ndarray, "picture size size 3"]]

TABLE: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "scene": pl.Int64,
    "factor": pl.String,
    "value_before": pl.String,
    "value_after": pl.String,
    "query": pl.String,
    "form": pl.String,
    "name": pl.String,
    "question_before": pl.String,
    "question_after": pl.String,
    "choices": pl.List(pl.String),
    "truth_before": pl.String,
    "truth_after": pl.String,
    "picture_before": pl.String,
    "picture_after": pl.String,
}
"""Columns of a gallery's table: those of a plan, with pictures by name and without the kind, which follows from the rest."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Counterfactual pairs of given pictures: one question about one pair a row of `table` (columns: `TABLE`).

    A row whose factor is "" changes no factor: of two names it is nuisance, of one name under two questions a paraphrase. `kind` is
    *exact* (the same picture with one thing edited) or *matched* (two pictures alike in all else). `render` gives pictures by name.
    `attribution` is what the pictures' licence asks to be said; it is printed and kept in the record. `left_out` counts rows that could
    not be used, by reason.
    """

    name: str
    kind: PairKind
    table: pl.DataFrame
    render: Render
    factors: tuple[Factor, ...] = ()
    attribution: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
