"""Forecasts of read and leak, and their quality: rank correlation, error and calibration on policies and worlds not fitted on.

The forecast under test uses numbers from before training (coverage, its limit, pressure, proxy bits). Its rivals use numbers from after
training (accuracy), or numbers that ignore which questions are asked of which scenes (frequency, the modality gap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from theodolite.records.part import Estimate
from theodolite.records.study import GridRun
from theodolite.stats.rates import bootstrap

NUM_RESAMPLES = 400
NUM_BINS = 5
FEWEST = 6
# Columns that each forecast uses, for answers that should move (read) and for those that should not (leak).
FORECASTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "questions": {
        "read": ("coverage", "coverage_limit", "pressure_bits"),
        "leak": ("proxy_bits", "coverage", "coverage_limit", "pressure_bits"),
    },
    "accuracy": {"read": ("accuracy",), "leak": ("accuracy",)},
    "frequency": {"read": ("frequency",), "leak": ("frequency",)},
    # Of scenes in which nothing is correlated, so it is itself a measure of what is read: no earlier than the survey.
    "decorrelated": {"read": ("accuracy_decorrelated",), "leak": ("accuracy_decorrelated",)},
    "gap": {"read": ("gap_first", "gap_last"), "leak": ("gap_first", "gap_last")},
    # Two bits of the numbers of "questions": is the coverage limit 1, and are there any proxy bits?
    "yes or no": {"read": ("whole",), "leak": ("whole", "tied")},
    # The mean rate of the fitted rows: the baseline that a forecast must beat.
    "constant": {"read": (), "leak": ()},
}
COLUMNS = {
    "world": pl.String, "policy": pl.String, "run": pl.String, "seed": pl.Int64, "factor": pl.String, "query": pl.String, "kind": pl.String,
    "measured": pl.Float64, "coverage": pl.Float64, "coverage_limit": pl.Float64, "pressure_bits": pl.Float64, "proxy_bits": pl.Float64,
    "whole": pl.Float64, "tied": pl.Float64, "accuracy": pl.Float64, "frequency": pl.Float64, "gap_first": pl.Float64,
    "gap_last": pl.Float64, "accuracy_decorrelated": pl.Float64, "about_tied": pl.Boolean,
}  # fmt: skip


def cells_table(lines: Iterable[GridRun]) -> pl.DataFrame:
    """One row per run, asked open query and factor: the rate at which answers move, and the inputs of all forecasts.

    Leaks are those of the two correlated factors alone: no other can be a proxy, and cells that are all noise would make the rank
    correlation one of noise. `policy` names world, correlation, strength and policy: common to all seeds and to arms that differ in scale
    alone. Queries answered at chance even on training scenes are left out. `whole` is 1 where the coverage limit is 1, `tied` where proxy
    bits are above 0, else 0. `accuracy` is that on training scenes, above chance (0: chance, 1: all right), `accuracy_decorrelated` that on
    scenes of the independent prior (null: not measured); the gap is relative, at the connector and behind the last layer (null: not
    measured). `about_tied`: whether the query is about one of the two correlated factors.
    """
    rows = [row for line in lines for row in _rows(line)]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def _rows(line: GridRun) -> Iterable[tuple[object, ...]]:
    forecast, setup = line.foretold, line.setup
    policy = f"{setup.world} {'-'.join(setup.correlation)} {setup.strength:g} {setup.policy}"
    training = [rate for rate in line.answered if rate.form == "open" and rate.scenes == "training"]
    right = {rate.query: _above_chance(rate.frac, rate.chance_frac) for rate in training}
    apart = {
        rate.query: _above_chance(rate.frac, rate.chance_frac)
        for rate in line.answered
        if rate.form == "open" and rate.scenes == "decorrelated"
    }
    competent = {rate.query for rate in training if rate.low is not None and rate.low > rate.chance_frac}
    gaps = list(line.gap.values())
    first, last = (gaps[0], gaps[-1]) if gaps else (None, None)
    for cell in line.cells:
        query = cell.query
        asked = cell.form == "open" and query in forecast.asked_frac and query in competent
        if not asked or not (cell.truth_moves or cell.factor in setup.correlation):
            continue
        limit, bits = forecast.coverage_limit.get(query, 0.0), forecast.proxy_bits.get(f"{cell.factor}->{query}", 0.0)
        yield (
            setup.world, policy, line.key, setup.seed, cell.factor, query, "read" if cell.truth_moves else "leak", cell.moved_frac,
            forecast.coverage.get(query, 0.0), limit, forecast.pressure_bits.get(query, 0.0), bits, float(limit == 1),
            float(bits > 0), right.get(query), forecast.asked_frac[query], first, last, apart.get(query),
            query in setup.correlation,
        )  # fmt: skip


def _above_chance(frac: float, chance: float) -> float:
    return (frac - chance) / (1 - chance) if chance < 1 else 0.0


def rank_correlation(table: pl.DataFrame, column: str, seed: int = 0) -> Estimate | None:
    """Spearman's rho of a column with the measured rates, -1 to 1, policies weighted equally, with its interval by policy; None if either
    is constant."""
    rows = table.drop_nulls([column, "measured"])
    if rows.is_empty() or rows[column].n_unique() < 2 or rows["measured"].n_unique() < 2:
        return None
    arrays = (rows[column].to_numpy(), rows["measured"].to_numpy(), policy_weights(rows))
    return over_policies(_rho, arrays, rows, seed)


def run_means(table: pl.DataFrame) -> pl.DataFrame:
    """One row per run, the means over its cells: the modality gap is one number a run, so the cells of a run cannot differ by it."""
    return table.group_by("policy", "run", maintain_order=True).agg(pl.col(pl.Float64).mean())


def _rho(one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"]) -> float:
    """Spearman's rho of weighted rows: Pearson's of their ranks, a rank being the weight below plus half of that at the same value."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    joint = np.cov(weighted_ranks(one, weights), weighted_ranks(other, weights), aweights=weights)
    return float(joint[0, 1] / np.sqrt(joint[0, 0] * joint[1, 1]))


def weighted_ranks(values: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Rank of each row: the weight of the rows below it and half of that of the rows at its value."""
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights)
    return (np.cumsum(at) - at / 2)[place]


def over_policies(statistic: Callable[..., float], arrays: Sequence[np.ndarray], rows: pl.DataFrame, seed: int = 0) -> Estimate:
    """A statistic of rows with a bootstrap interval over policies, the unit to which a forecast is to generalise.

    Ends are None for fewer than `FEWEST` policies, where intervals are too narrow (with three a nominal 95 % interval covers some 75 %).
    """
    policies = rows["policy"].rank("dense").cast(pl.Int64).to_numpy()
    estimate = bootstrap(statistic, arrays, policies, np.random.default_rng(seed), NUM_RESAMPLES)
    return estimate if estimate.num_scenes >= FEWEST else estimate.model_copy(update={"low": None, "high": None})


def predict_rates(fitted: pl.DataFrame, unseen: pl.DataFrame, columns: Sequence[str]) -> Float[np.ndarray, " row"]:
    """Forecast rates, 0 to 1, of the rows of `unseen` by a logistic regression fitted on other rows, every policy with equal total weight.

    Without columns the forecast is the weighted mean rate. Raises `ValueError` on missing values.
    """
    rate, weights = fitted["measured"].to_numpy(), policy_weights(fitted)
    if not columns:
        return np.full(len(unseen), np.average(rate, weights=weights))
    return fit_rates(fitted.select(columns).to_numpy(), rate, weights)(unseen.select(columns).to_numpy())


def fit_rates(
    inputs: Float[np.ndarray, "row column"], rates: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"]
) -> Callable[[Float[np.ndarray, "other column"]], Float[np.ndarray, " other"]]:
    """Forecast of rates, 0 to 1, from inputs: a logistic regression on standardised inputs.

    Each row is fitted as a 1 with its rate as the weight and a 0 with the remaining weight, times the row's own weight. Raises
    `ValueError` on missing values.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    doubled = np.concatenate([rates, 1 - rates]) * np.concatenate([weights, weights])
    positive = doubled > 0
    labels = np.concatenate([np.ones(len(rates)), np.zeros(len(rates))])
    scale = len(rates) / doubled.sum()
    model.fit(np.concatenate([inputs, inputs])[positive], labels[positive], logisticregression__sample_weight=scale * doubled[positive])
    return lambda others: np.asarray(model.predict_proba(others)[:, 1])


def policy_weights(rows: pl.DataFrame) -> Float[np.ndarray, " row"]:
    """A weight for each row, one over the number of rows of its policy: every policy counts alike."""
    sizes = rows.join(rows.group_by("policy").len(), on="policy", how="left", maintain_order="left")["len"].to_numpy()
    return 1.0 / sizes


def calibration_error(
    forecast: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"] | None = None
) -> float:
    """Mean, over bins of equal width and weighted by their rows, of |mean forecast - mean measured|, 0 to 1; `weights` are of the rows.

    The expected calibration error of Guo et al. (arXiv 1706.04599), for rates in place of single outcomes.
    """
    return float(sum(share * abs(predicted - rate) for share, predicted, rate in reliability(forecast, measured, weights)))


def reliability(
    forecast: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"] | None = None
) -> list[tuple[float, float, float]]:
    """For each bin with rows: its share of all rows, mean forecast and mean measured rate, all weighted if `weights` are given."""
    weights = np.ones(len(forecast)) if weights is None else weights
    return [
        (
            float(weights[rows].sum() / weights.sum()),
            float(np.average(forecast[rows], weights=weights[rows])),
            float(np.average(measured[rows], weights=weights[rows])),
        )
        for rows in _bins(forecast)
    ]


def mean_measured(rows: pl.DataFrame, forecast: Float[np.ndarray, " row"]) -> list[tuple[float, Estimate]]:
    """For each bin with rows: the mean forecast, and the mean measured rate with its interval by policy; policies are weighted equally."""
    measured, weights = rows["measured"].to_numpy(), policy_weights(rows)
    return [
        (
            float(np.average(forecast[in_bin], weights=weights[in_bin])),
            over_policies(_mean, (measured[in_bin], weights[in_bin]), rows.filter(in_bin)),
        )
        for in_bin in _bins(forecast)
    ]


def _bins(forecast: Float[np.ndarray, " row"]) -> list[Bool[np.ndarray, " row"]]:
    """Masks of the rows in each of `NUM_BINS` bins of equal width; empty bins are left out."""
    numbers = np.minimum((forecast * NUM_BINS).astype(int), NUM_BINS - 1)
    return [numbers == number for number in np.unique(numbers)]


def error_difference(rows: pl.DataFrame, one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], seed: int = 0) -> Estimate:
    """Mean absolute error of `one` less that of `other`, -1 to 1 (below 0: `one` is nearer), policies weighted equally, with an interval by
    policy."""
    difference = np.abs(one - rows["measured"].to_numpy()) - np.abs(other - rows["measured"].to_numpy())
    return over_policies(_mean, (difference, policy_weights(rows)), rows, seed)


def _mean(values: Float[np.ndarray, " row"], weights: Float[np.ndarray, " row"]) -> float:
    return float(np.average(values, weights=weights))


def mean_error(rows: pl.DataFrame, forecast: Float[np.ndarray, " row"]) -> Estimate:
    """Mean absolute error of a forecast, 0 to 1, policies weighted equally, with an interval by policy."""
    return over_policies(_mean, (np.abs(forecast - rows["measured"].to_numpy()), policy_weights(rows)), rows)
