"""Competence: how often a query is answered right, against a chance that other scenes give."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from theodolite.records.part import Rate
from theodolite.records.survey import Competence
from theodolite.stats.rates import clustered_rate

State = Literal["fit", "at_chance", "unknown"]
NUM_FOLDS = 10
NEAR_CHANCE_FRAC = 0.1


class Question(NamedTuple):
    """A query's factor and form."""

    query: str
    form: str

    @property
    def words(self) -> str:
        return f"{self.query} ({self.form})"


def measure_competence(rows: pl.DataFrame, confidence: float) -> list[Competence]:
    """Accuracy and chance of each query and form, 0 to 1, on both pictures of all pairs and, where there are some, on training rows.

    A picture under a question counts once. Chance is the larger of two rules that see no picture: the commonest true answer of the question
    among the scenes of the other folds, and a guess among the choices.
    """
    pairs = rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
    sides = [_single(pairs, side) for side in ("before", "after")]
    kinds: tuple[tuple[Literal["decorrelated", "training"], pl.DataFrame], ...] = (
        ("decorrelated", pl.concat(sides).unique(["scene", "picture", "name", "question", "choices"], keep="first", maintain_order=True)),
        ("training", _single(rows.filter(pl.col("kind") == "training"), "before")),
    )
    return [
        _competence(str(query), str(form), scenes, group, confidence)
        for scenes, items in kinds
        for (query, form), group in items.drop_nulls("answer").group_by(["query", "form"], maintain_order=True)
    ]


def _single(rows: pl.DataFrame, side: str) -> pl.DataFrame:
    """One side of each row as a single question about a picture."""
    return rows.select(
        "scene",
        "query",
        "form",
        "name",
        "choices",
        picture=f"picture_{side}",
        question=f"question_{side}",
        truth=f"truth_{side}",
        answer=f"answer_{side}",
    )


def _competence(query: str, form: str, scenes: Literal["decorrelated", "training"], items: pl.DataFrame, confidence: float) -> Competence:
    right = (items["answer"] == items["truth"]).cast(pl.Float64).to_numpy()
    rate = clustered_rate(right, items["scene"].to_numpy(), confidence)
    guessing = float((1 / items["choices"].list.len()).to_numpy().mean())
    chance = max(commonest_right_frac(items), guessing)
    return Competence(query=query, form=form, scenes=scenes, rate=rate, chance_frac=chance, state=state_of(rate, chance))


def commonest_right_frac(items: pl.DataFrame) -> float:
    """Share of items that the commonest true answer in other scenes gets right, 0 to 1; `items` has scene, name and truth.

    Scenes are dealt out to ten folds, and each fold is answered by the truths of the others: the items judged do not set their own chance.
    By name, since "is it red?" and "is it not red?" have different commonest answers. Ties go to the answer that sorts first.
    """
    folds = items.with_columns(fold=(pl.col("scene").rank("dense") - 1).cast(pl.Int64) % NUM_FOLDS)
    counts = folds.group_by("name", "truth", "fold").len()
    total = counts.group_by("name", "truth").agg(total=pl.col("len").sum())
    numbers = pl.DataFrame({"fold": list(range(NUM_FOLDS))}, schema={"fold": pl.Int64})
    elsewhere = (
        total.join(numbers, how="cross")
        .join(counts, on=["name", "truth", "fold"], how="left")
        .with_columns(elsewhere=pl.col("total") - pl.col("len").fill_null(0))
        .filter(pl.col("elsewhere") > 0)
        .sort("elsewhere", "truth", descending=[True, False])
        .group_by("name", "fold", maintain_order=True)
        .agg(commonest=pl.col("truth").first())
    )
    answered = folds.join(elsewhere, on=["name", "fold"], how="left")
    return float(np.mean((answered["truth"] == answered["commonest"]).fill_null(value=False).to_numpy()))


def state_of(rate: Rate, chance_frac: float) -> State:
    """Whether a query can be asked: *at_chance* if the upper end lies within 0.1 of chance, *fit* if the lower end lies above chance."""
    if rate.low is None or rate.high is None:
        return "unknown"
    if rate.high < chance_frac + NEAR_CHANCE_FRAC:
        return "at_chance"
    return "fit" if rate.low > chance_frac else "unknown"


def states(competence: list[Competence]) -> dict[Question, State]:
    """The state of each query and form on the training distribution, or on the pairs where there are no training rows.

    Training rows have priority: a shadow is at chance on decorrelated scenes too, although the model understands the question.
    """
    by_question: dict[Question, State] = {}
    for cell in competence:
        key = Question(cell.query, cell.form)
        if key not in by_question or cell.scenes == "training":
            by_question[key] = cell.state
    return by_question
