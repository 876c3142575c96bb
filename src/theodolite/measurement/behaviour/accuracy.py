"""Accuracy of answered rows by items, pairs and groups. The scene is the unit of independence."""

from __future__ import annotations

import polars as pl

from theodolite.measurement.behaviour.outside import withheld_queries, without_answers
from theodolite.records.accuracy import Accuracy, ShareRight
from theodolite.stats.rates import clustered_rate

ITEM = ("scene", "picture", "question", "choices")
PAIR = ("scene", "question_before", "choices", "first", "second")


def measure_accuracy(rows: pl.DataFrame, confidence: float = 0.95, outside_frac: float = 0.5) -> Accuracy | None:
    """Accuracy of answered rows (columns: `records.rows`), 0 to 1; None where all rows are training rows.

    Chance is uniform over the choices and independent between items: 1 in 4 items of four choices, 1 in 16 pairs of them. A missing
    answer (null) leaves out the item, and every pair or group that it belongs to; so does an answer to a query whose mean mass outside
    the choices is above `outside_frac`.
    """
    rows = without_answers(rows, withheld_queries(rows, outside_frac))
    items = _items(rows)
    if items.is_empty():
        return None
    # Without the pictures and questions of the noise floor, which would make groups that benchmarks do not have.
    edited = _items(rows.filter(pl.col("kind") == "intervention"))
    by_question = edited.group_by("scene", "question", "choices", maintain_order=True).agg(*_TOGETHER, several=pl.len() > 1)
    by_picture = edited.group_by("scene", "picture", maintain_order=True).agg(
        *_TOGETHER, several=pl.struct("question", "choices").n_unique() > 1
    )
    by_scene = edited.group_by("scene", maintain_order=True).agg(*_TOGETHER, several=(pl.len() > 2) & (pl.col("picture").n_unique() > 1))
    return Accuracy(
        item=_share(items, confidence),
        pair=_several(_pairs(rows).with_columns(several=True), confidence),
        question=_several(by_question, confidence),
        picture=_several(by_picture, confidence),
        group=_several(by_scene, confidence),
    )


# Null if any answer is missing; chance is that of guessing all of them.
_TOGETHER = (
    pl.when(pl.col("right").is_null().any()).then(None).otherwise(pl.col("right").all()).alias("right"),
    pl.col("chance").product().alias("chance"),
)


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    """Every picture under every question once: `right` (null if not answered) and `chance`."""
    rows = rows.filter(~pl.col("kind").is_in(["training", "perturbation"]))
    sides = [
        rows.select(
            "scene",
            "choices",
            picture=f"picture_{side}",
            question=f"question_{side}",
            right=pl.col(f"answer_{side}") == pl.col(f"truth_{side}"),
            chance=1 / pl.col("choices").list.len(),
        )
        for side in ("before", "after")
    ]
    return pl.concat(sides).unique(ITEM, keep="first", maintain_order=True)


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Two pictures under one question with different right answers; each unordered pair once."""
    moving = rows.filter((pl.col("kind") == "intervention") & (pl.col("truth_before") != pl.col("truth_after")))
    answered = pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null()
    right = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    return moving.select(
        "scene",
        "question_before",
        "choices",
        first=pl.min_horizontal("picture_before", "picture_after"),
        second=pl.max_horizontal("picture_before", "picture_after"),
        right=pl.when(answered).then(right),
        chance=1 / pl.col("choices").list.len() ** 2,
    ).unique(PAIR, keep="first", maintain_order=True)


def _several(groups: pl.DataFrame, confidence: float) -> ShareRight | None:
    """The share of right groups among those of several items; None where there are none."""
    groups = groups.filter("several")
    return None if groups.is_empty() else _share(groups, confidence)


def _share(groups: pl.DataFrame, confidence: float) -> ShareRight:
    answered = groups.filter(pl.col("right").is_not_null())
    rate = None
    if not answered.is_empty():
        rate = clustered_rate(answered["right"].cast(pl.Float64).to_numpy(), answered["scene"].to_numpy(), confidence)
    chance = (groups if answered.is_empty() else answered)["chance"].to_numpy()
    return ShareRight(rate=rate, chance_frac=float(chance.mean()), num_unanswered=len(groups) - len(answered))
