"""What the pairs of a survey can show, before any model is asked: by factor, the differences that their scenes can tell from none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from theodolite.measurement.behaviour.competence import Question
from theodolite.measurement.behaviour.shadows import dependent_names, in_evidence_form, noise_rows, pairs_of_factor
from theodolite.measurement.behaviour.verdicts import adjusted_confidence
from theodolite.records.survey import Thresholds
from theodolite.stats.power import detectable_rate, detectable_rate_difference
from theodolite.stats.rates import exact_interval

POWER = 0.8
MOST_SCENES = 2_000  # enumeration of both binomials; more scenes resolve no less


@dataclass(frozen=True)
class ResolvableLeak:
    """What the pairs can show of the leak of a factor into one query.

    `smallest` is the smallest true leak, without noise, that is found with 80 % power; None where none is, or without noise rows.
    `none_possible` says whether "no leak" can be concluded where no answer moves.
    """

    query: str
    num_scenes: int
    num_noise_scenes: int
    smallest: float | None
    none_possible: bool


@dataclass(frozen=True)
class Resolvable:
    """What the pairs can show of one factor. `smallest_read` and `largest_unread` are true rates that are found with 80 % power."""

    factor: str
    asked: bool
    num_read_scenes: int
    smallest_read: float | None
    largest_unread: float | None
    leaks: tuple[ResolvableLeak, ...]


def resolvable(
    rows: pl.DataFrame, factors: Sequence[str], dependence: Mapping[str, frozenset[str]], asked: frozenset[str], thresholds: Thresholds
) -> tuple[Resolvable, ...]:
    """What planned rows (columns: `records.rows.COLUMNS`) can show of each factor at these thresholds. Counts each scene as one pair."""
    rows = in_evidence_form(rows.filter(pl.col("name").is_in(sorted(asked))))
    noise = _num_scenes(noise_rows(rows))
    return tuple(_of_factor(rows, factor, dependence, asked, noise, thresholds) for factor in factors)


def _of_factor(
    rows: pl.DataFrame,
    factor: str,
    dependence: Mapping[str, frozenset[str]],
    asked: frozenset[str],
    noise: Mapping[Question, int],
    thresholds: Thresholds,
) -> Resolvable:
    names = dependent_names(factor, dependence, asked)
    reads, leaks = pairs_of_factor(rows, factor, names)
    num_read, counts = reads["scene"].n_unique(), _num_scenes(leaks)
    level = adjusted_confidence(thresholds.confidence, len(counts))
    margin, scenes = thresholds.leak_above_noise_frac, min(num_read, MOST_SCENES)
    return Resolvable(
        factor=factor,
        asked=bool(names),
        num_read_scenes=num_read,
        smallest_read=detectable_rate(scenes, thresholds.read_frac, thresholds.confidence, POWER) if scenes > 1 else None,
        largest_unread=detectable_rate(scenes, thresholds.read_frac, thresholds.confidence, POWER, below=True) if scenes > 1 else None,
        leaks=tuple(_leak(query, number, noise.get(query, 0), margin, thresholds.confidence, level) for query, number in counts.items()),
    )


def _num_scenes(rows: pl.DataFrame) -> dict[Question, int]:
    """Number of scenes of each query and form, in the order of the rows."""
    counts = rows.group_by("query", "form", maintain_order=True).agg(pl.col("scene").n_unique())
    return {Question(*key): number for *key, number in counts.iter_rows()}


def _leak(query: Question, num_scenes: int, num_noise: int, margin: float, confidence: float, level: float) -> ResolvableLeak:
    paired = min(num_scenes, num_noise, MOST_SCENES)
    return ResolvableLeak(
        query=query.words,
        num_scenes=num_scenes,
        num_noise_scenes=num_noise,
        smallest=detectable_rate_difference(paired, 0.0, margin, level, POWER) if paired > 1 else None,
        none_possible=paired > 1 and exact_interval(0.0, float(num_scenes), confidence)[1] < margin,
    )


def fewest_scenes_without_leak(thresholds: Thresholds) -> int:
    """The fewest scenes at which "no leak" can be concluded, where no answer moves: 36 at the default thresholds."""
    number = 2
    while exact_interval(0.0, float(number), thresholds.confidence)[1] >= thresholds.leak_above_noise_frac and number < 100_000:
        number += 1
    return number
