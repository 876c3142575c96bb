"""A plan's questions put to an asker: the rows of a survey, answered."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from theodolite.asking.answer import Answer, Asker, Question
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.progress import Progress, silent
from theodolite.stats.rates import total_variation


def answer_plan(plan: Plan, asker: Asker, progress: Progress = silent) -> pl.DataFrame:
    """The plan's rows with both answers, their probabilities in the order of `choices`, and whether anything moved.

    The same question about the same picture is asked once, however many rows it stands in. What was not answered is null, and so is
    whatever depends on it.
    """
    sides = [
        [Question(picture, question, tuple(choices)) for picture, question, choices in plan.rows.select(
            f"picture_{side}", f"question_{side}", "choices").iter_rows()]
        for side in ("before", "after")
    ]  # fmt: skip
    unique = list(dict.fromkeys(ask for side in sides for ask in side))
    unique.sort(key=lambda ask: ask.picture)
    found = dict(zip(unique, asker.ask(plan.pictures, unique, progress), strict=True))
    rows = plan.rows
    for side, asks in zip(("before", "after"), sides, strict=True):
        rows = rows.with_columns(_answer_columns(asks, [found[ask] for ask in asks], side))
    answered = pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null()
    right = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    return rows.with_columns(
        moved=pl.col("answer_before") != pl.col("answer_after"),
        right=pl.when(answered).then(right),  # else a wrong answer beside a missing one would count
        variation=pl.Series(_variations([found[ask] for ask in sides[0]], [found[ask] for ask in sides[1]]), dtype=pl.Float64),
    )


def _answer_columns(asks: Sequence[Question], answers: Sequence[Answer], side: str) -> list[pl.Series]:
    chosen = [None if answer.chosen is None else ask.choices[answer.chosen] for ask, answer in zip(asks, answers, strict=True)]
    probabilities = [None if answer.probabilities is None else answer.probabilities.tolist() for answer in answers]
    return [
        pl.Series(f"answer_{side}", chosen, pl.String),
        pl.Series(f"probabilities_{side}", probabilities, pl.List(pl.Float64)),
        pl.Series(f"outside_{side}", [answer.outside for answer in answers], pl.Float64),
    ]


def _variations(before: Sequence[Answer], after: Sequence[Answer]) -> list[float | None]:
    return [_variation(one, other) for one, other in zip(before, after, strict=True)]


def _variation(one: Answer, other: Answer) -> float | None:
    if one.probabilities is None or other.probabilities is None:
        return None
    return float(total_variation(one.probabilities[None], other.probabilities[None])[0])
