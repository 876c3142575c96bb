"""Study forecast: do coverage and its kin predict before training where a model will fail? Rivals: accuracy, frequency, modality gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from jaxtyping import Float

from theodolite.records.part import Estimate
from theodolite.records.study import Claim, Figure, Point
from theodolite.stats.claims import Rule, Statement, judge_claim
from theodolite.stats.forecast import (
    COLUMNS,
    FORECASTS,
    calibration_error,
    cells_table,
    error_difference,
    mean_error,
    mean_measured,
    over_policies,
    policy_weights,
    predict_rates,
    rank_correlation,
    run_means,
)
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, Study, point_of
from theodolite.studies.flip_setup import ESSAY, NUM_PICTURES, NUM_SCENES, STEPS
from theodolite.training.recipe import tour_shapes
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.shapes.world import Shapes

NUM_POLICIES, QUICK_POLICIES = 10, 2
DRAWN_BY = 2026
# Without letter: it covers few pixels and is learned slowly, so a short run is no evidence about it.
FACTORS = ("shape", "colour", "size", "column", "row", "texture", "ground", "tilt")
STRENGTHS = (0.5, 0.8, 0.9, 0.95)
REGIONS = ("all", "agree", "odd")
Drawn = tuple[tuple[str, str], float, str]


def drawn_policies(number: int) -> list[Drawn]:
    """Correlations, strengths and policies drawn at random under a fixed seed: (cause and effect, strength, policy).

    A policy asks about the cause in a region; with probability 0.5 about the effect in a region, else about a third factor in all scenes;
    and about a fourth factor in all scenes, so that every picture has a question.
    """
    rng = np.random.default_rng(DRAWN_BY)
    policies = []
    for _ in range(number):
        cause, effect, other, filler = (str(name) for name in rng.choice(FACTORS, 4, replace=False))
        strength = float(rng.choice(STRENGTHS))
        first, second = (str(region) for region in rng.choice(REGIONS, 2))
        both = bool(rng.random() < 0.5)
        asked = [_ask(cause, first), _ask(effect, second) if both else other, filler]
        policies.append(((cause, effect), strength, ",".join(asked)))
    return policies


def _ask(name: str, region: str) -> str:
    return name if region == "all" else f"{name}:{region}"


def forecast_grid(seeds: Sequence[int], quick: bool = False) -> tuple[Run, ...]:
    """Runs of the drawn policies, which no other study has: forecasts fitted on the other studies are tested on them."""
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
    "coverage": ("read", "coverage", "Coverage predicts how far a factor that is asked about is read"),
    "coverage limit": ("read", "coverage_limit", "The limit of coverage under endless data predicts how far such a factor is read"),
    "pressure": ("read", "pressure_bits", "Pressure predicts how far such a factor is read"),
    "proxy bits": ("leak", "proxy_bits", "Proxy bits predict how far a tied factor leaks into answers that are not about it"),
}
SIGNS = {
    "coverage": "coverage", "coverage limit": "coverage_limit", "pressure": "pressure_bits", "proxy bits": "proxy_bits",
    "accuracy": "accuracy", "accuracy, decorrelated": "accuracy_decorrelated",
    "frequency": "frequency", "gap, first": "gap_first", "gap, last": "gap_last",
}  # fmt: skip
RHO = "Spearman's rho over runs, queries and factors, policies weighted equally, interval by policy"
RUN_RHO = "Spearman's rho over means of runs, policies weighted equally, interval by policy"
NEARER = "mean absolute error of the forecast from the questions less that from {rival}, interval by policy"
RIVALS = {
    "accuracy": "accuracy on questions as in training", "frequency": "how often each question is asked", "gap": "the modality gap",
    "decorrelated": "accuracy on decorrelated scenes",
}  # fmt: skip
# Joined after the runs, when its error was known.
LATER_RIVALS = ("decorrelated",)
AFTERWARDS = "added after the runs"
UNSEEN = {"policies": "policies that it was never fitted on", "world": "a world that it was never fitted on (easy-VQA)"}
LINE = 0.5


def judge_forecast(runs: FinishedRuns) -> tuple[Claim, ...]:
    """The claims that the runs of the grid and of the other studies can decide."""
    own, others = cells_table(line for _, line in runs.pairs), cells_table(runs.others)
    everything = pl.concat([own, others])
    claims = [_rank(everything, name) for name in RANKS]
    for name in ("gap_first", "gap_last"):
        for kind in ("read", "leak"):
            claims.append(_gap(everything.filter(pl.col("kind") == kind), name, kind))
    for split, kind, fitted, unseen in _splits(own, others):
        claims += _held_out(fitted, unseen, kind, split)
    return tuple(claims)


def _splits(own: pl.DataFrame, others: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame, pl.DataFrame]]:
    """Split, read or leak, rows to fit on, and held-out rows: the drawn policies of this study, then easy-VQA; empty ones are omitted."""
    easy = pl.col("world") == EasyVQA.name
    splits = {"policies": (others.filter(~easy), own), "world": (pl.concat([others.filter(~easy), own]), others.filter(easy))}
    for split, tables in splits.items():
        for kind in ("read", "leak"):
            needed = [name for name in COLUMNS if name != "accuracy_decorrelated"]
            fitted, unseen = (table.filter(pl.col("kind") == kind).drop_nulls(needed) for table in tables)
            if len(fitted) and len(unseen):
                yield split, kind, fitted, unseen


def _claim(statement: Statement, estimate: Estimate | None, rows: pl.DataFrame) -> Claim:
    """A claim whose interval is over policies, without values by seed."""
    return judge_claim(statement, estimate, {}, rows.drop_nulls("measured")["run"].n_unique(), "policy")


def _rank(everything: pl.DataFrame, name: str) -> Claim:
    kind, column, text = RANKS[name]
    rows = everything.filter(pl.col("kind") == kind)
    return _claim(Statement(name, f"{text}.", ESSAY, Rule("above", LINE), RHO, 2), rank_correlation(rows, column), rows)


def _gap(rows: pl.DataFrame, column: str, kind: str) -> Claim:
    where = "at the connector" if column == "gap_first" else "behind the last layer"
    text = (
        f"The geometric modality gap {where} tells nothing of {kind}, over means of runs (it is one number a run; judged over cells, as "
        "the rule said at first, the claim is invalid)."
    )
    statement = Statement(f"gap {where}, {kind}", text, AFTERWARDS, Rule("within", 0.2), RUN_RHO, 1, known=True)
    return _claim(statement, rank_correlation(run_means(rows), column), rows)


def _held_out(fitted: pl.DataFrame, unseen: pl.DataFrame, kind: str, split: str) -> list[Claim]:
    """Claims on held-out rows: the forecast from the questions has a smaller error than each rival, and is calibrated."""
    forecasts = _forecasts(fitted, unseen, kind)
    claims = []
    for rival, words in RIVALS.items():
        if rival not in forecasts:
            continue
        known = rival in LATER_RIVALS
        text = f"On {UNSEEN[split]}, the questions alone predict {kind} better than {words} does."
        source = AFTERWARDS if known else ESSAY
        statement = Statement(f"{kind}, {split}: {rival}", text, source, Rule("below", 0.0), NEARER.format(rival=words), 2, known)
        claims.append(_claim(statement, error_difference(unseen, forecasts["questions"], forecasts[rival]), unseen))
    text = f"On {UNSEEN[split]}, the forecast of {kind} from the questions is calibrated."
    unit = "expected calibration error, 5 bins of forecast, interval by policy"
    statement = Statement(f"{kind}, {split}: calibration", text, ESSAY, Rule("below", 0.1), unit, 2)
    arrays = (forecasts["questions"], unseen["measured"].to_numpy(), policy_weights(unseen))
    claims.append(_claim(statement, over_policies(calibration_error, arrays, unseen), unseen))
    return claims


def _forecasts(fitted: pl.DataFrame, unseen: pl.DataFrame, kind: str) -> dict[str, Float[np.ndarray, " row"]]:
    """Each forecast of the unseen rows by name; one whose inputs were not measured is left out."""
    measured = {
        name: columns[kind]
        for name, columns in FORECASTS.items()
        if not any(table[column].null_count() for table in (fitted, unseen) for column in columns[kind])
    }
    return {name: predict_rates(fitted, unseen, columns) for name, columns in measured.items()}


def draw_forecast(runs: FinishedRuns) -> tuple[Figure, ...]:
    """Rank correlations of single numbers, held-out errors of the forecasts, and calibration of the one from the questions."""
    own, others = cells_table(line for _, line in runs.pairs), cells_table(runs.others)
    errors, bins = [], []
    for split, kind, fitted, unseen in _splits(own, others):
        panel = f"{kind}, unseen {split}"
        errors += _error_points(panel, fitted, unseen, kind)
        tied = unseen.filter(pl.col("about_tied"))
        if 0 < len(tied) < len(unseen):
            errors += _error_points(f"{panel}, tied factors only", fitted, tied, kind)
        bins += _bin_points(panel, fitted, unseen, kind)
    # An error is an amount, so its axis begins at 0; it ends at the next tenth above every bar.
    top = math.ceil(10 * max((end for point in errors for end in (point.value, point.high or 0.0)), default=1.0)) / 10 or 0.1
    return (
        *_ranks(own, others),
        Figure(
            name="forecast",
            title="How far forecasts are off where they were not fitted",
            caption="Mean absolute error of a logistic regression on what is named below, fitted on other runs and held against "
            "policies or a world that it never saw; lower is better. Bars are 95 % intervals by policy. "
            "Added after the runs: 'decorrelated' is accuracy on scenes in which nothing is correlated, no earlier than the survey itself; "
            "'yes or no' looks only at whether the limit of coverage is 1 and there are any proxy bits; 'constant' is the mean rate. "
            "Policies are weighted equally. 'Tied factors only': cells of questions about one of the two correlated factors.",
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
    """Spearman's rho of each single number with the measured rate: over all cells (as in the claims), the drawn policies, and run means."""
    points = []
    for kind in ("read", "leak"):
        cells, drawn = (table.filter(pl.col("kind") == kind) for table in (pl.concat([own, others]), own))
        tied = cells.filter(pl.col("about_tied"))
        for series, rows in (
            ("all cells", cells),
            ("cells about the tied factors", tied),
            ("cells of the drawn policies alone", drawn),
            ("all runs", run_means(cells)),
        ):
            rhos = {name: rank_correlation(rows, column) for name, column in SIGNS.items()}
            points += [point_of(kind, series, name, rho, {}) for name, rho in rhos.items() if rho is not None]
    if points:
        yield Figure(
            name="forecast-ranks",
            title="How well each number alone ranks what was measured",
            caption="Spearman's rho with the rate at which answers move; bars are 95 % intervals by policy. Claims are judged over all "
            "cells (run, query and factor), those of the modality gap over means of each run's cells, since it is one number a run. "
            "The rest was added after the runs and has no rule. Policies are weighted equally.",
            x_title="what is computed",
            y_title="Spearman's rho",
            y_range=(-1.0, 1.0),
            joined=False,
            points=tuple(points),
        )


def _error_points(panel: str, fitted: pl.DataFrame, unseen: pl.DataFrame, kind: str) -> Iterator[Point]:
    for name, rates in _forecasts(fitted, unseen, kind).items():
        yield point_of(panel, "forecast", name, mean_error(unseen, rates), {})


def _bin_points(panel: str, fitted: pl.DataFrame, unseen: pl.DataFrame, kind: str) -> Iterator[Point]:
    rates = predict_rates(fitted, unseen, FORECASTS["questions"][kind])
    for forecast, measured in mean_measured(unseen, rates):
        yield point_of(panel, "measured", round(forecast, 3), measured, {})


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
        "Added after the runs: policies are weighted equally (before, cells were, and one policy had a quarter of the leak cells); the "
        "claims about the modality gap are over means of runs; accuracy on decorrelated scenes stands among the rivals.",
    ),
)
