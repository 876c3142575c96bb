"""Shadows from answers to counterfactual pairs: read, right, leak above noise, competence, and a verdict for each factor.

Definitions: the design of this project ("Shadows"); after the essay "The Coverage Lock" (Y. Cai), open question 3. Needs rows of answers
only, so it also works for models behind an API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import polars as pl

from theodolite.measurement.behaviour.competence import Question, State, measure_competence, states
from theodolite.measurement.behaviour.dependence import contradictions
from theodolite.measurement.behaviour.outside import withheld_queries, without_answers
from theodolite.measurement.behaviour.verdicts import FactorRates, adjusted_confidence, judge, sensitivity
from theodolite.records.part import Rate
from theodolite.records.survey import Cell, Leak, Noise, NoiseSource, Shadows, Thresholds, Unanswered
from theodolite.stats.rates import clustered_rate, rate_difference

# The columns that are used: texts and probabilities of a large survey are not copied into every group.
MEASURED = (
    "kind", "scene", "factor", "query", "form", "name", "choices", "truth_before", "truth_after", "answer_before",
    "answer_after", "moved", "right", "variation", "outside_before", "outside_after", "picture_before", "picture_after",
    "question_before", "question_after",
)  # fmt: skip
# A query's evidence is its form that comes first here, of those that the policy asks.
FORMS = ("open", "yes_no", "conjunction")
# The noise of a query is that of the first source that it has. A leak compares two pictures under one wording, so noise of pictures comes
# first: noise of the wording would hide leaks of a model that is sensitive to wording.
SOURCES: tuple[NoiseSource, ...] = get_args(NoiseSource)
# Whether each answer moved, 0 or 1, and its scene.
Moves = tuple[np.ndarray, np.ndarray]


def measure_shadows(
    rows: pl.DataFrame, factors: Sequence[str], dependence: Mapping[str, frozenset[str]], asked: frozenset[str], thresholds: Thresholds
) -> Shadows:
    """All shadow quantities of a survey's rows. Unanswered rows are counted and left out of all other quantities.

    `dependence` maps each query's name to the factors that its answer depends on; `asked` holds the names that the policy supports.
    """
    unanswered = tuple(_unanswered(rows))
    outside_by_query = withheld_queries(rows, thresholds.outside_frac)
    withheld = {Question(*key): mass for key, mass in outside_by_query.items()}
    rows = without_answers(rows.select(MEASURED), outside_by_query)
    confidence = thresholds.confidence
    competence = measure_competence(rows, confidence)
    answered = rows.filter(pl.col("moved").is_not_null())
    rates = [_factor_rates(rows, factor, dependence, asked, states(competence), withheld, confidence) for factor in factors]
    evidence = {factor.factor: judge(factor, thresholds) for factor in rates}
    mislabelled, num_mislabelled = contradictions(rows, dependence)
    outside = pl.concat([rows["outside_before"], rows["outside_after"]]).drop_nulls()
    return Shadows(
        thresholds=thresholds,
        cells=tuple(_cells(answered, confidence)),
        noise_cells=tuple(_noises(answered, confidence)),
        leaks=tuple(leak for factor in rates for leak in factor.leaks),
        competence=tuple(competence),
        verdicts={factor: each.verdict for factor, each in evidence.items()},
        evidence=evidence,
        sensitivity=sensitivity(rates, thresholds),
        mislabelled=mislabelled,
        num_mislabelled=num_mislabelled,
        withheld={query.words: mass for query, mass in withheld.items()},
        outside_mass=float(np.mean(outside.to_numpy())) if len(outside) else None,
        unanswered=unanswered,
    )


def _unanswered(rows: pl.DataFrame) -> list[Unanswered]:
    """Queries with unanswered questions. A question about a picture counts once, even if several rows contain it."""
    if not (rows["answer_before"].null_count() or rows["answer_after"].null_count()):
        return []
    sides = [
        rows.select(
            "query",
            "form",
            pl.col(f"question_{side}").alias("question"),
            pl.col(f"picture_{side}").alias("picture"),
            pl.col("choices"),
            pl.col(f"answer_{side}").is_null().alias("unanswered"),
        )
        for side in ("before", "after")
    ]
    questions = pl.concat(sides).unique(maintain_order=True)
    return [
        Unanswered(query=query, form=form, num_questions=len(group), num_unanswered=missing, frac=missing / len(group))
        for (query, form), group in questions.group_by(["query", "form"], maintain_order=True)
        if (missing := int(group["unanswered"].sum()))
    ]


def _rate(rows: pl.DataFrame, column: str, confidence: float) -> Rate:
    return clustered_rate(rows[column].cast(pl.Float64).to_numpy(), rows["scene"].to_numpy(), confidence)


def _cells(rows: pl.DataFrame, confidence: float) -> list[Cell]:
    interventions = rows.filter(pl.col("kind") == "intervention").with_columns(truth_moves=pl.col("truth_before") != pl.col("truth_after"))
    cells = []
    keys = ["factor", "query", "form", "truth_moves"]
    for (factor, query, form, truth_moves), group in interventions.group_by(keys, maintain_order=True):
        moved, right, variation = (_rate(group, column, confidence) for column in ("moved", "right", "variation"))
        cells.append(
            Cell(
                factor=factor,
                query=query,
                form=form,
                truth_moves=truth_moves,
                moved_frac=moved.frac,
                low=moved.low,
                high=moved.high,
                num_pairs=moved.num_pairs,
                num_scenes=moved.num_scenes,
                right_frac=right.frac,
                right_low=right.low,
                right_high=right.high,
                variation=variation.frac,
                variation_low=variation.low,
                variation_high=variation.high,
            )
        )
    return cells


def _noises(rows: pl.DataFrame, confidence: float) -> list[Noise]:
    return [
        Noise(
            query=query,
            form=form,
            source=kind,
            rate=_rate(group, "moved", confidence),
            variation=float(np.mean(group["variation"].to_numpy())),
        )
        for (query, form, kind), group in noise_rows(rows).group_by(["query", "form", "kind"], maintain_order=True)
    ]


def _factor_rates(
    rows: pl.DataFrame,
    factor: str,
    dependence: Mapping[str, frozenset[str]],
    asked: frozenset[str],
    fitness: Mapping[Question, State],
    withheld: Mapping[Question, float],
    confidence: float,
) -> FactorRates:
    """What the rows measure of one factor under the queries asked, each in the form that is its evidence."""
    rows = in_evidence_form(rows.filter(pl.col("name").is_in(sorted(asked))))
    dependent = dependent_names(factor, dependence, asked)
    reads, leaks = pairs_of_factor(rows, factor, dependent)
    answered = reads.filter(pl.col("moved").is_not_null())
    queries = tuple(Question(*key) for key in reads.select("query", "form").unique(maintain_order=True).iter_rows())
    noises = [noise for query in queries if (noise := _noise_of(rows, query)[1]) is not None]
    compared = len(noises) == len(queries) and len(answered) > 0
    measured, missing_leaks = _leaks(leaks, rows, factor, withheld, confidence)
    return FactorRates(
        factor=factor,
        asked=bool(dependent),
        read=_rate(answered, "moved", confidence) if len(answered) else None,
        read_above_noise=rate_difference(*_moves(answered), *_moves(pl.concat(noises)), confidence) if compared else None,
        read_queries=queries,
        missing_read=_missing_read(len(answered), queries, withheld),
        leaks=measured,
        missing_leaks=missing_leaks,
        states=fitness,
    )


def dependent_names(factor: str, dependence: Mapping[str, frozenset[str]], asked: frozenset[str]) -> list[str]:
    """The names of the queries asked whose answer depends on a factor, sorted."""
    return sorted(name for name in asked if factor in dependence.get(name, frozenset()))


def pairs_of_factor(rows: pl.DataFrame, factor: str, dependent: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pairs in which a factor changes that are evidence of reading it, and those that are evidence of its leaks.

    A query that depends on the factor may keep its truth in some pairs ("is it red?" of green and blue); those are neither.
    """
    changed = rows.filter((pl.col("kind") == "intervention") & (pl.col("factor") == factor))
    depends, truth_moves = pl.col("name").is_in(dependent), pl.col("truth_before") != pl.col("truth_after")
    return changed.filter(depends & truth_moves), changed.filter(~depends & ~truth_moves)


def noise_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in which nothing changes that a question is about.

    Matched pictures replace a new nuisance seed; only rows whose truth is unchanged are noise.
    """
    return rows.filter(pl.col("kind").is_in(SOURCES) & (pl.col("truth_before") == pl.col("truth_after")))


def in_evidence_form(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of each query in the form that is its evidence: open where it is asked openly, else yes/no, else conjunction."""
    order = {form: number for number, form in enumerate(FORMS)}
    rank = pl.col("form").replace_strict(order, default=len(FORMS), return_dtype=pl.Int64)
    return rows.filter(rank == rank.min().over("query"))


def _leaks(
    moving: pl.DataFrame, rows: pl.DataFrame, factor: str, withheld: Mapping[Question, float], confidence: float
) -> tuple[tuple[Leak, ...], tuple[str, ...]]:
    """The leak into each query against that query's own noise, and what is missing for "no query leaks"."""
    groups = list(moving.group_by(["query", "form"], maintain_order=True))
    if not groups:
        return (), ("leak, which needs a question whose true answer the change leaves alone",)
    leaks, missing = [], []
    adjusted = adjusted_confidence(confidence, len(groups))
    for (about, form), group in groups:
        query = Question(str(about), str(form))
        answered = group.filter(pl.col("moved").is_not_null())
        if answered.is_empty():
            missing.append(f"leak, which needs {_no_answers(query, withheld)}")
            continue
        source, noise = _noise_of(rows, query)
        if noise is None:
            missing.append(f"noise of {query.words}")
        moves = None if noise is None else _moves(noise)
        leaks.append(leak_of(factor, query, _moves(answered), source, moves, confidence, adjusted))
    return tuple(leaks), tuple(missing)


def _missing_read(num_answered: int, queries: Sequence[Question], withheld: Mapping[Question, float]) -> tuple[str, ...]:
    """What is missing for a read rate, in words."""
    if num_answered:
        return ()
    needs = tuple(_no_answers(query, withheld) for query in queries) or ("a pair that changes the true answer",)
    return tuple(f"read, which needs {need}" for need in needs)


def _no_answers(query: Question, withheld: Mapping[Question, float]) -> str:
    where = f" among its choices ({withheld[query]:.0%} of the probability lies outside them)" if query in withheld else ""
    return f"answers to {query.words}{where}"


def leak_of(
    factor: str, query: Question, leak: Moves, source: NoiseSource | None, noise: Moves | None, confidence: float, adjusted: float
) -> Leak:
    """The leak of a factor into a query above its noise, with ends at the plain level and at the adjusted one."""
    plain, simultaneous = (None if noise is None else rate_difference(*leak, *noise, level) for level in (confidence, adjusted))
    return Leak(
        factor=factor,
        query=query.query,
        form=query.form,
        rate=clustered_rate(*leak, confidence),
        source=source,
        noise=None if noise is None else clustered_rate(*noise, confidence),
        above_noise=plain,
        adjusted=simultaneous,
    )


def _noise_of(rows: pl.DataFrame, query: Question) -> tuple[NoiseSource | None, pl.DataFrame | None]:
    """The answered noise rows of a query from the first source that has any."""
    noise = noise_rows(rows.filter((pl.col("query") == query.query) & (pl.col("form") == query.form) & pl.col("moved").is_not_null()))
    for source in SOURCES:
        own = noise.filter(pl.col("kind") == source)
        if len(own):
            return source, own
    return None, None


def _moves(rows: pl.DataFrame) -> Moves:
    return rows["moved"].cast(pl.Float64).to_numpy(), rows["scene"].to_numpy()
