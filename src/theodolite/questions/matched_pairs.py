"""`coverage` of annotated examples, estimated from matched pairs: examples equal in all factors but one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy import stats

from theodolite.questions.annotated import Annotated, annotate
from theodolite.questions.conditional_entropy import Context, Outcomes, cells, select_context
from theodolite.questions.pressure import pressure_estimate, pressure_gaps
from theodolite.records.data_coverage import DataCoverage, FactorCoverage, QueryRecords
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import rounded
from theodolite.stats.rates import exact_interval

UNSUPPORTED = -1


@dataclass(frozen=True, eq=False)
class RecordedTable:
    """One query as estimated from the records: each example's answer (-1: not supported), and the factors on which it depends.

    An example's answer is the most frequent one among examples equal in `depends_on`. The query is supported at an example if it was asked
    of any example equal in `asked_by`, the factors on which *asking* depends. Both sets are selected from the data, so a rare combination
    that was not asked by chance is no gap unless the records show that asking depends on it.
    """

    answer: Int[np.ndarray, " example"]
    depends_on: Context
    asked_by: Context
    noise_frac: float
    num_rows: int
    num_answers: int


def recorded_table(table: Annotated, query: int) -> RecordedTable:
    """The answer and support of one query, estimated for every example."""
    everything = tuple(range(len(table.factors)))
    rows = np.flatnonzero(table.query == query)
    example, answer = table.example[rows], table.answer[rows]
    asked = np.zeros(table.num_examples, dtype=np.int64)
    asked[example] = 1
    asked_by = select_context(Outcomes(table.levels, asked, np.arange(table.num_examples)), everything)
    region = cells(table.levels, asked_by)
    supported = np.bincount(region, asked)[region] > 0
    depends_on = select_context(Outcomes(table.levels[example], answer, example), everything)
    cell = cells(table.levels, depends_on)
    most = _most_frequent(cell[example], answer, int(cell.max()) + 1)
    estimated = np.where(supported, most[cell], UNSUPPORTED)
    noise = float((answer != most[cell[example]]).mean())
    return RecordedTable(estimated, depends_on, asked_by, noise, len(rows), len(np.unique(answer)))


def _most_frequent(cell: np.ndarray, answer: np.ndarray, num_cells: int) -> np.ndarray:
    """The most frequent answer in each cell, the lowest of equals; -1 in an empty cell."""
    num_answers = int(answer.max()) + 1
    distinct, counts = np.unique(cell * num_answers + answer, return_counts=True)
    order = np.lexsort((-distinct, counts))  # of several writes to a cell, the last stays
    most = np.full(num_cells, UNSUPPORTED)
    most[distinct[order] // num_answers] = distinct[order] % num_answers
    return most


@dataclass(frozen=True, eq=False)
class Matches:
    """Per example that has a match (another example equal in all factors but one): its stratum, and the share of the other examples of
    its stratum from which the questions distinguish it."""

    stratum: Int[np.ndarray, " matched"]
    distinguished_frac: Float[np.ndarray, " matched"]


def match_pairs(table: Annotated, answers: Sequence[Int[np.ndarray, " example"]], factor: int) -> Matches:
    """Matches of one factor, over pairs of *different* examples: n_v n_w / (N (N - 1)) is unbiased for p(v) p(w), n_v n_w / N^2 is not."""
    rest = tuple(column for column in range(len(table.factors)) if column != factor)
    stratum = cells(table.levels, rest)
    size = np.bincount(stratum)
    level, num_levels = table.levels[:, factor], len(table.values[factor])
    point, of_example = np.unique(stratum * num_levels + level, return_inverse=True)  # distinct scenes
    num_alike = np.bincount(of_example)
    first = np.unique(of_example, return_index=True)[1]
    scenes = [answer[first] for answer in answers]
    position = np.full((len(size), num_levels), -1)
    position[point // num_levels, point % num_levels] = np.arange(len(point))
    num_distinguished = np.zeros(len(point))
    for other_level in range(num_levels):
        other = position[point // num_levels, other_level]
        distinguished = _distinguished(scenes, other) & (other >= 0) & (point % num_levels != other_level)
        num_distinguished += distinguished * num_alike[other]
    matched = size[stratum] >= 2
    strata = stratum[matched]
    return Matches(strata, num_distinguished[of_example][matched] / (size[strata] - 1))


def _distinguished(answers: Sequence[Int[np.ndarray, " scene"]], other: Int[np.ndarray, " scene"]) -> Bool[np.ndarray, " scene"]:
    """Whether some query supported at both has different answers for each scene and the scene at `other`."""
    distinguished = np.zeros(len(other), dtype=bool)
    for answer in answers:
        distinguished |= (answer != answer[other]) & (answer != UNSUPPORTED) & (answer[other] != UNSUPPORTED)
    return distinguished


def coverage_estimate(matches: Matches, num_values: int, confidence: float) -> Estimate | None:
    """`coverage` of a factor, 0 to 1, with an interval by example; None where no example has a match.

    A U-statistic over pairs within strata, each stratum weighted by its examples. The variance is the jackknife's by example; the interval
    is the exact binomial one at the sample size with that variance (near 0 and 1 a t interval is wrong). Its lower end is at most that of
    as many examples all distinguished. The estimated answers count as exact: their own error is not in the interval.
    """
    number = len(matches.distinguished_frac)
    if number == 0:
        return None
    best = 1 - 1 / num_values
    frac = float(matches.distinguished_frac.mean())
    variance, spread = _variance(matches), frac * (1 - frac)
    size = spread / variance if min(variance, spread) > 1e-15 else float(number)
    tail = (1 + confidence) / 2
    size *= (stats.norm.ppf(tail) / stats.t.ppf(tail, number - 1)) ** 2
    low, high = (end / best for end in exact_interval(frac, size, confidence))
    most = exact_interval(1.0, float(number), confidence)[0]
    return Estimate(value=min(1.0, frac / best), low=min(low, most), high=min(high, 1.0), num_scenes=number)


def _variance(matches: Matches) -> float:
    """Jackknife variance of the mean of `distinguished_frac`: each matched example left out of its pairs in turn."""
    stratum, size = np.unique(matches.stratum, return_inverse=True, return_counts=True)[1:]
    members = size[stratum].astype(float)
    num_distinguished = matches.distinguished_frac * (members - 1)
    pairs = np.bincount(stratum, num_distinguished)[stratum]
    left = np.where(members > 2, (pairs - 2 * num_distinguished) / np.maximum(members - 2, 1), 0.0)
    total, number = float(matches.distinguished_frac.sum()), len(stratum)
    others = number - np.where(members > 2, 1.0, 2.0)  # in a stratum of two, the other example is left without a match and drops out too
    if (others <= 0).any():
        return 0.0
    without = (total - pairs / (members - 1) + left) / others
    return float(((without - without.mean()) ** 2).sum() * (number - 1) / number)


def measure_data_coverage(
    table: pl.DataFrame, factors: Sequence[str] | None, rng: np.random.Generator, confidence: float = 0.95
) -> DataCoverage:
    """Coverage and pressure of annotated examples, with intervals clustered by example; `rng` draws the folds of the cross-fitting.

    `table` has one row per asked question: `query`, `answer`, optionally `example`, and factor columns (`factors`, default: all others).
    Raises `BadInput` on an invalid table (see `annotate`).
    """
    data = annotate(table, factors)
    queries = [recorded_table(data, query) for query in range(len(data.queries))]
    gaps = pressure_gaps(data, rng)

    def named(context: Context) -> tuple[str, ...]:
        return tuple(data.factors[column] for column in context)

    def of_factor(factor: int) -> FactorCoverage:
        matches = match_pairs(data, [query.answer for query in queries], factor)
        coverage = coverage_estimate(matches, len(data.values[factor]), confidence)
        return FactorCoverage(
            factor=data.factors[factor],
            num_values=len(data.values[factor]),
            coverage=None if coverage is None else rounded(coverage),
            matched_frac=round(len(matches.stratum) / data.num_examples, 6),
            pressure_bits=rounded(pressure_estimate(gaps, factor, data, confidence)),
            asked_by=tuple(name for name, query in zip(data.queries, queries, strict=True) if factor in query.depends_on),
        )

    return DataCoverage(
        num_rows=len(data),
        num_examples=data.num_examples,
        confidence=confidence,
        factors=tuple(of_factor(factor) for factor in range(len(data.factors))),
        queries=tuple(
            QueryRecords(
                query=name,
                num_rows=query.num_rows,
                num_answers=query.num_answers,
                depends_on=named(query.depends_on),
                asked_by=named(query.asked_by),
                noise_frac=round(query.noise_frac, 6),
            )
            for name, query in zip(data.queries, queries, strict=True)
        ),
    )
