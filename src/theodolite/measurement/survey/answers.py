"""A survey's rows: a plan's questions with the asker's answers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from theodolite.asking.answer import Answer, Asker, Question, listed
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.progress import Progress, silent
from theodolite.records.rows import COLUMNS, NAMED
from theodolite.stats.rates import total_variation


def answer_plan(plan: Plan, asker: Asker, progress: Progress = silent) -> pl.DataFrame:
    """The plan's rows with both answers, whether the answer changed (`moved`), and all else that `records.rows.ANSWERED` lists.

    A question about a picture is asked once, even if several rows hold it. Missing answers, and values that depend on them, are null.
    """
    sides = [
        [Question(picture, question, tuple(choices)) for picture, question, choices in plan.rows.select(
            f"picture_{side}", f"question_{side}", "choices").iter_rows()]
        for side in ("before", "after")
    ]  # fmt: skip
    unique = list(dict.fromkeys(question for side in sides for question in side))
    unique.sort(key=lambda question: question.picture)
    answers = dict(zip(unique, asker.ask(plan.pictures, unique, progress), strict=True))
    unnamed = [pl.lit(None, column.dtype).alias(name) for name, column in NAMED.items() if name not in plan.rows.columns]
    rows = plan.rows.with_columns(unnamed).select(*COLUMNS, *NAMED)
    for side, questions in zip(("before", "after"), sides, strict=True):
        rows = rows.with_columns(_answer_columns(questions, [answers[question] for question in questions], side))
    variations = [_variation(*(answers[question] for question in pair)) for pair in zip(*sides, strict=True)]
    answered = pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null()
    right = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    return rows.with_columns(
        moved=pl.col("answer_before") != pl.col("answer_after"),
        right=pl.when(answered).then(right),  # else one wrong and one missing answer would count as not right
        variation=pl.Series(variations, dtype=pl.Float64),
    )


def _answer_columns(questions: Sequence[Question], answers: Sequence[Answer], side: str) -> list[pl.Series]:
    pairs = zip(questions, answers, strict=True)
    chosen = [None if answer.chosen is None else question.choices[answer.chosen] for question, answer in pairs]
    probabilities = [listed(answer.probabilities) for answer in answers]
    return [
        pl.Series(f"answer_{side}", chosen, pl.String),
        pl.Series(f"probabilities_{side}", probabilities, pl.List(pl.Float64)),
        pl.Series(f"outside_{side}", [answer.outside for answer in answers], pl.Float64),
        pl.Series(f"total_logprob_{side}", [listed(answer.total_logprob) for answer in answers], pl.List(pl.Float64)),
        pl.Series(f"num_tokens_{side}", [listed(answer.num_tokens) for answer in answers], pl.List(pl.Int64)),
    ]


def _variation(before: Answer, after: Answer) -> float | None:
    if before.probabilities is None or after.probabilities is None or before.chosen is None or after.chosen is None:
        return None
    return float(total_variation(before.probabilities[None], after.probabilities[None])[0])
