"""forecast: does what is computed before training tell where a model will fail? Against accuracy, frequency, and the modality gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement, judge_claim
from theodolite.stats.forecast import (
    FORECASTS,
    calibration_error,
    cells_table,
    error_difference,
    mean_error,
    mean_measured,
    over_policies,
    predict_rates,
    rank_correlation,
    run_means,
)
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study
from theodolite.studies.flip import ESSAY, NUM_PICTURES, NUM_SCENES, STEPS
from theodolite.training.recipe import tour_shapes
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.shapes.world import Shapes

NUM_POLICIES, QUICK_POLICIES = 10, 2
DRAWN_BY = 2026
# Letters are read off few pixels and learned slowly, so a short run says nothing of them.
FACTORS = ("shape", "colour", "size", "column", "row", "texture", "ground", "tilt")
STRENGTHS = (0.5, 0.8, 0.9, 0.95)
REGIONS = ("all", "agree", "odd")
Drawn = tuple[tuple[str, str], float, str]


def drawn_policies(number: int) -> list[Drawn]:
    """Correlations, strengths and policies drawn once and for all, so that nobody chose them: (cause and effect, strength, policy).

    Cause is asked in a region, with even odds the effect in a region too, else another factor of all scenes; and a fourth factor of all, so
    that no picture goes without a question.
    """
    rng = np.random.default_rng(DRAWN_BY)
    found = []
    for _ in range(number):
        cause, effect, other, filler = (str(name) for name in rng.choice(FACTORS, 4, replace=False))
        strength = float(rng.choice(STRENGTHS))
        first, second = (str(region) for region in rng.choice(REGIONS, 2))
        both = bool(rng.random() < 0.5)
        asked = [_ask(cause, first), _ask(effect, second) if both else other, filler]
        found.append(((cause, effect), strength, ",".join(asked)))
    return found


def _ask(name: str, region: str) -> str:
    return name if region == "all" else f"{name}:{region}"


def forecast_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Policies that no other study has: what forecasts that were fitted on those are held against."""
    recipe = replace(tour_shapes(), name="study-shapes", steps=STEPS)
    drawn = drawn_policies(QUICK_POLICIES if quick else NUM_POLICIES)
    return tuple(
        Run(
            Shapes.name,
            Arm(f"drawn {number}", policy, recipe, strength, NUM_PICTURES, among=f"drawn {number}"),
            seed,
            NUM_SCENES,
            correlation=correlation,
            measures=("gap",),
            official=False,
            survey_seed=seed,
        )
        for seed in seeds
        for number, (correlation, strength, policy) in enumerate(drawn)
    )


RANKS = {
    "coverage": ("read", "coverage", "Coverage foretells how far a factor that is asked about is read"),
    "coverage limit": ("read", "coverage_limit", "The limit of coverage under endless data foretells how far such a factor is read"),
    "pressure": ("read", "pressure_bits", "Pressure foretells how far such a factor is read"),
    "proxy bits": ("leak", "proxy_bits", "Proxy bits foretell how far a tied factor leaks into answers that are not about it"),
}
SIGNS = {
    "coverage": "coverage", "coverage limit": "coverage_limit", "pressure": "pressure_bits", "proxy bits": "proxy_bits",
    "accuracy": "accuracy", "frequency": "frequency", "gap, first": "gap_first", "gap, last": "gap_last",
}  # fmt: skip
RHO = "Spearman's rho over runs, queries and factors, interval by policy"
NEARER = "mean absolute error of the forecast from the questions less that from {rival}, interval by policy"
RIVALS = {
    "accuracy": "accuracy on questions as in training",
    "frequency": "how often each question is asked",
    "gap": "the modality gap",
}
UNSEEN = {"policies": "policies that it was never fitted on", "world": "a world that it was never fitted on (easy-VQA)"}
LINE = 0.5


def judge_forecast(found: FinishedRuns) -> tuple[Claim, ...]:
    """Every claim that the runs can speak to."""
    own, others = cells_table(line for _, line in found.pairs), cells_table(found.others)
    everything = pl.concat([own, others])
    claims = [_rank(everything, name) for name in RANKS]
    for name in ("gap_first", "gap_last"):
        for kind in ("read", "leak"):
            claims.append(_gap(everything.filter(pl.col("kind") == kind), name, kind))
    for unseen, (fitted, held) in _splits(own, others).items():
        for kind in ("read", "leak"):
            rows = [part.filter(pl.col("kind") == kind).drop_nulls() for part in (fitted, held)]
            if all(len(part) for part in rows):
                claims += _held_out(rows[0], rows[1], kind, unseen)
    return tuple(claims)


def _splits(own: pl.DataFrame, others: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """What is fitted on, and what is held out: the drawn policies of this study; the world of easy-VQA."""
    easy = pl.col("world") == EasyVQA.name
    return {"policies": (others.filter(~easy), own), "world": (pl.concat([others.filter(~easy), own]), others.filter(easy))}


def _claim(statement: Statement, estimate: Estimate | None, rows: pl.DataFrame) -> Claim:
    """A claim whose interval is by policy; runs are counted, not spread over."""
    return judge_claim(statement, estimate, {}, rows.drop_nulls("measured")["run"].n_unique(), "policy")


def _rank(everything: pl.DataFrame, name: str) -> Claim:
    kind, column, text = RANKS[name]
    rows = everything.filter(pl.col("kind") == kind)
    return _claim(Statement(name, f"{text}.", ESSAY, Rule("above", LINE), RHO, 2), rank_correlation(rows, column), rows)


def _gap(rows: pl.DataFrame, column: str, kind: str) -> Claim:
    where = "at the connector" if column == "gap_first" else "behind the last layer"
    text = f"The geometric modality gap {where} tells nothing of {kind}."
    statement = Statement(f"gap {where}, {kind}", text, ESSAY, Rule("within", 0.2), RHO, 1)
    return _claim(statement, rank_correlation(rows, column), rows)


def _held_out(fitted: pl.DataFrame, held: pl.DataFrame, kind: str, unseen: str) -> list[Claim]:
    """Nearer than each rival, and calibrated, on what was never fitted on."""
    told = {name: predict_rates(fitted, held, columns[kind]) for name, columns in FORECASTS.items()}
    claims = []
    for rival, words in RIVALS.items():
        text = f"On {UNSEEN[unseen]}, the questions alone foretell {kind} better than {words} does."
        statement = Statement(f"{kind}, {unseen}: {rival}", text, ESSAY, Rule("below", 0.0), NEARER.format(rival=words), 2)
        claims.append(_claim(statement, error_difference(held, told["questions"], told[rival]), held))
    text = f"On {UNSEEN[unseen]}, the forecast of {kind} from the questions is calibrated."
    unit = "expected calibration error, 5 bins of forecast, interval by policy"
    statement = Statement(f"{kind}, {unseen}: calibration", text, ESSAY, Rule("below", 0.1), unit, 2)
    arrays = (told["questions"], held["measured"].to_numpy())
    claims.append(_claim(statement, over_policies(calibration_error, arrays, held), held))
    return claims


def draw_forecast(found: FinishedRuns) -> tuple[Figure, ...]:
    """How far forecasts are off on what they were not fitted on, and how well the one from the questions is calibrated."""
    own, others = cells_table(line for _, line in found.pairs), cells_table(found.others)
    errors, bins = [], []
    for unseen, (fitted, held) in _splits(own, others).items():
        for kind in ("read", "leak"):
            rows = [part.filter(pl.col("kind") == kind).drop_nulls() for part in (fitted, held)]
            if all(len(part) for part in rows):
                panel = f"{kind}, unseen {unseen}"
                errors += list(_error_points(panel, rows[0], rows[1], kind))
                bins += list(_bin_points(panel, rows[0], rows[1], kind))
    # An error is an amount, so its axis begins at 0 and ends at the tenth above all that is drawn.
    top = math.ceil(10 * max((end for point in errors for end in (point.value, point.high or 0.0)), default=1.0)) / 10 or 0.1
    return (
        *_ranks(own, others),
        Figure(
            name="forecast",
            title="How far forecasts are off where they were not fitted",
            caption="Mean absolute error of a logistic regression on what is named below, fitted on other runs and held against "
            "policies or a world that it never saw; lower is better. Bars are 95 % intervals by policy. "
            "Two were added after the runs, without a claim: 'yes or no' looks only at whether the limit of coverage is 1 and there are "
            "any proxy bits; 'constant' looks at nothing and says the mean rate.",
            x_title="what the forecast looks at",
            y_title="mean absolute error of the rate",
            y_range=(0.0, top),
            joined=False,
            points=tuple(errors),
        ),
        Figure(
            name="forecast-calibration",
            title="Forecast from the questions against what was measured",
            caption="Each point is a fifth of the scale of forecasts that holds any rows; on the dashed diagonal a forecast is calibrated. "
            "Bars are 95 % intervals by policy, where a fifth holds at least 6.",
            x_title="mean forecast",
            y_title="mean measured rate",
            y_range=(0.0, 1.0),
            x_range=(0.0, 1.0),
            joined=True,
            diagonal=True,
            points=tuple(bins),
        ),
    )


def _ranks(own: pl.DataFrame, others: pl.DataFrame) -> Iterator[Figure]:
    """How well each number by itself ranks what was measured: over all cells, as the claims have it; over fewer, and over runs."""
    points = []
    for kind in ("read", "leak"):
        cells, drawn = (table.filter(pl.col("kind") == kind) for table in (pl.concat([own, others]), own))
        for series, rows in (("all cells", cells), ("cells of the drawn policies alone", drawn), ("all runs", run_means(cells))):
            told = {name: rank_correlation(rows, column) for name, column in SIGNS.items()}
            points += [_point(kind, series, name, found) for name, found in told.items() if found is not None]
    if points:
        yield Figure(
            name="forecast-ranks",
            title="How well each number alone ranks what was measured",
            caption="Spearman's rho with the rate at which answers move; bars are 95 % intervals by policy. Claims are judged over all "
            "cells (run, query and factor). The rest was added after the runs and has no rule: the policies that nobody chose by "
            "themselves, and means over each run's cells: the modality gap is one number a run, and cells of a run hide what it tells.",
            x_title="what is computed",
            y_title="Spearman's rho",
            y_range=(-1.0, 1.0),
            joined=False,
            points=tuple(points),
        )


def _error_points(panel: str, fitted: pl.DataFrame, held: pl.DataFrame, kind: str) -> Iterator[Point]:
    for name, columns in FORECASTS.items():
        yield _point(panel, "forecast", name, mean_error(held, predict_rates(fitted, held, columns[kind])))


def _bin_points(panel: str, fitted: pl.DataFrame, held: pl.DataFrame, kind: str) -> Iterator[Point]:
    told = predict_rates(fitted, held, FORECASTS["questions"][kind])
    for forecast, measured in mean_measured(held, told):
        yield _point(panel, "measured", round(forecast, 3), measured)


def _point(panel: str, series: str, x: str | float, found: Estimate) -> Point:
    low, high = (None if end is None else round(end, 5) for end in (found.low, found.high))
    return Point(panel=panel, series=series, x=x, value=round(found.value, 5), low=low, high=high, by_seed={})


FORECAST = Study(
    name="forecast",
    question="Does what is computed before training tell where a model will fail?",
    grid=forecast_grid,
    judge=judge_forecast,
    draw=draw_forecast,
    reads=("flip", "lock"),
    notes=(
        "Seeds are pooled here: forecasts are about policies, so the policy is the unit of all intervals, and fewer than 6 give none.",
        "Intervals on what was held out are for the forecast as it was fitted: they leave out that the fit rests on few policies itself.",
        "Leaks are those of the two tied factors; no other factor can be a proxy.",
    ),
)
