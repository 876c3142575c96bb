"""Galleries: counterfactual pairs of existing pictures, with questions. They have no prior, hence no coverage. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import UInt8

from theodolite.worlds.decoding import DecodedPicture
from theodolite.worlds.factors import Factor
from theodolite.worlds.world import PairKind

# Renders pictures by name, RGB, at one size: (picture, size, size, 3).
Render = Callable[[Sequence[str], int], UInt8[np.ndarray, "picture size size 3"]]


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """The picture files of a gallery, by the pictures' names: each is decoded when it is opened, at its own size.

    `open` decodes a picture, of a JPEG at least the given (width, height) (`decoding.decode`); threads call it, within `strict_pillow`.
    `sizes` are (width, height) in the files, upright; `sha256` is over the files' bytes.
    """

    open: Callable[[str, tuple[int, int] | None], DecodedPicture]
    sizes: Mapping[str, tuple[int, int]]
    sha256: Mapping[str, str]


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
"""Columns of a gallery's table: those of a plan, with pictures by name, and without the kind, which the others determine."""
NAMES: Mapping[str, pl.DataType | type[pl.DataType]] = {"scene_name": pl.String, "row": pl.String}
"""Further columns of a table whose scenes and rows have names of their own, as those of manifests do."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Counterfactual pairs of existing pictures. Each row of `table` (columns: `TABLE`, and `NAMES` where there are
    names) is one question about one pair.

    A row whose factor is "" changes no factor: two pictures make it a nuisance row, one picture under two questions a paraphrase row.
    `kind` is *exact* (the same picture with one thing edited) or *matched* (two pictures that agree in all other factors). `render` draws
    pictures by name. `attribution` is the credit line that the licence requires; it is printed and recorded. `left_out` counts unusable
    rows by reason. `dependence` holds, by a query's name, the factors that its answer is declared to depend on; it need not hold all
    queries. `files` are the files of pictures that have a size of their own; None where `render` draws them at any size. The names of
    files are relative to `folder`.
    """

    name: str
    kind: PairKind
    table: pl.DataFrame
    render: Render
    factors: tuple[Factor, ...] = ()
    attribution: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    dependence: Mapping[str, frozenset[str]] = field(default_factory=dict)
    files: PictureFiles | None = None
    folder: Path | None = None
