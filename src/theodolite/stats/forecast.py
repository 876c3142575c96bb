"""Forecasts of read and leak, and how right they were: rank correlation, error and calibration on policies and worlds never fitted on.

What is foretold is known before training (coverage, its limit, pressure, proxy bits); what it is held against is known only after it
(accuracy), or says nothing of what is asked where (frequency, the modality gap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from theodolite.records.part import Estimate
from theodolite.records.study import AnsweredRight, GridRun
from theodolite.stats.rates import bootstrap

NUM_RESAMPLES = 400
NUM_BINS = 5
FEWEST = 6
# What each forecast may look at, for answers that should move (read) and for those that should not (leak).
FORECASTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "questions": {
        "read": ("coverage", "coverage_limit", "pressure_bits"),
        "leak": ("proxy_bits", "coverage", "coverage_limit", "pressure_bits"),
    },
    "accuracy": {"read": ("accuracy",), "leak": ("accuracy",)},
    "frequency": {"read": ("frequency",), "leak": ("frequency",)},
    "gap": {"read": ("gap_first", "gap_last"), "leak": ("gap_first", "gap_last")},
    # Two bits of the same numbers: is everything pinned down in the limit, and does the factor tell of the answer at all?
    "yes or no": {"read": ("whole",), "leak": ("whole", "tied")},
    # The mean rate of what was fitted on: what a forecast must beat to tell anything.
    "constant": {"read": (), "leak": ()},
}
COLUMNS = {
    "world": pl.String, "policy": pl.String, "run": pl.String, "seed": pl.Int64, "factor": pl.String, "query": pl.String, "kind": pl.String,
    "measured": pl.Float64, "coverage": pl.Float64, "coverage_limit": pl.Float64, "pressure_bits": pl.Float64, "proxy_bits": pl.Float64,
    "whole": pl.Float64, "tied": pl.Float64, "accuracy": pl.Float64, "frequency": pl.Float64, "gap_first": pl.Float64,
    "gap_last": pl.Float64,
}  # fmt: skip


def cells_table(lines: Iterable[GridRun]) -> pl.DataFrame:
    """One row for each run, asked open query and factor: how often its answers move, and all that a forecast may look at.

    Of leaks, only those of the two tied factors: no other can be a proxy, and a rank correlation over cells that are all noise would be one
    of noise. `policy` names world, correlation, strength and policy: what all seeds, and arms that differ in scale alone, have in common.
    Queries that a model answers at chance even as in training are left out. `whole` is 1 where questions pin the factor down in all scenes
    (limit of coverage 1), `tied` where the factor tells of the answer (proxy bits above 0), else 0. `accuracy` is that on questions as in
    training, above chance (0: chance, 1: all right); the gap is relative, at the connector and behind the last layer (null: not measured).
    """
    rows = [row for line in lines for row in _rows(line)]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def _rows(line: GridRun) -> Iterable[tuple[object, ...]]:
    told, setup = line.foretold, line.setup
    policy = f"{setup.world} {'-'.join(setup.correlation)} {setup.strength:g} {setup.policy}"
    right = {found.query: _above_chance(found.frac, found.chance_frac) for found in line.answered if _of_training(found)}
    fit = {found.query for found in line.answered if _of_training(found) and found.low is not None and found.low > found.chance_frac}
    gaps = list(line.gap.values())
    first, last = (gaps[0], gaps[-1]) if gaps else (None, None)
    for cell in line.cells:
        query = cell.query
        asked = cell.form == "open" and query in told.asked_frac and query in fit
        if not asked or not (cell.truth_moves or cell.factor in setup.correlation):
            continue
        limit, bits = told.coverage_limit.get(query, 0.0), told.proxy_bits.get(f"{cell.factor}->{query}", 0.0)
        yield (
            setup.world, policy, line.key, setup.seed, cell.factor, query, "read" if cell.truth_moves else "leak", cell.moved_frac,
            told.coverage.get(query, 0.0), limit, told.pressure_bits.get(query, 0.0), bits, float(limit == 1),
            float(bits > 0), right.get(query), told.asked_frac[query], first, last,
        )  # fmt: skip


def _of_training(found: AnsweredRight) -> bool:
    return found.form == "open" and found.scenes == "training"


def _above_chance(frac: float, chance: float) -> float:
    return (frac - chance) / (1 - chance) if chance < 1 else 0.0


def rank_correlation(table: pl.DataFrame, column: str, seed: int = 0) -> Estimate | None:
    """Spearman's rho of a column with what was measured, -1 to 1, interval by policy; null where one never varies."""
    rows = table.drop_nulls([column, "measured"])
    if rows.is_empty() or rows[column].n_unique() < 2 or rows["measured"].n_unique() < 2:
        return None
    arrays = (rows[column].to_numpy(), rows["measured"].to_numpy())
    return over_policies(_rho, arrays, rows, seed)


def run_means(table: pl.DataFrame) -> pl.DataFrame:
    """One row a run: means over its cells. The modality gap is one number a run, so cells of a run cannot differ by it."""
    return table.group_by("policy", "run", maintain_order=True).agg(pl.col(pl.Float64).mean())


def _rho(one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def over_policies(statistic: Callable[..., float], arrays: Sequence[np.ndarray], rows: pl.DataFrame, seed: int = 0) -> Estimate:
    """A statistic of rows, with the interval of resampled policies: the unit over which a forecast is to hold.

    Ends are null for fewer than `FEWEST` policies, whose resamples say too little (three gave a nominal 95 % interval some 75 %).
    """
    policies = rows["policy"].rank("dense").cast(pl.Int64).to_numpy()
    found = bootstrap(statistic, arrays, policies, np.random.default_rng(seed), NUM_RESAMPLES)
    return found if found.num_scenes >= FEWEST else found.model_copy(update={"low": None, "high": None})


def predict_rates(fitted: pl.DataFrame, unseen: pl.DataFrame, columns: Sequence[str]) -> Float[np.ndarray, " row"]:
    """The forecast, 0 to 1, of the rows of `unseen` by a logistic regression that was fitted on other rows.

    A rate is as many ones and zeros: each row is fitted as a 1 with its rate as the weight, and a 0 with the rest. Rows are weighted so
    that every policy counts alike. Without columns it is their mean rate. Raises `ValueError` on missing values.
    """
    rate = fitted["measured"].to_numpy()
    sizes = fitted.join(fitted.group_by("policy").len(), on="policy", how="left", maintain_order="left")["len"].to_numpy()
    if not columns:
        return np.full(len(unseen), np.average(rate, weights=1 / sizes))
    told = fitted.select(columns).to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    weights = np.concatenate([rate, 1 - rate]) / np.concatenate([sizes, sizes])
    kept = weights > 0
    labels = np.concatenate([np.ones(len(rate)), np.zeros(len(rate))])
    scale = len(rate) / weights.sum()
    model.fit(np.concatenate([told, told])[kept], labels[kept], logisticregression__sample_weight=scale * weights[kept])
    return np.asarray(model.predict_proba(unseen.select(columns).to_numpy())[:, 1])


def absolute_error(forecast: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"]) -> float:
    """Mean absolute difference of forecast and measured rates, 0 to 1."""
    return float(np.abs(forecast - measured).mean())


def calibration_error(forecast: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"]) -> float:
    """Mean, over bins of equal width and weighted by their rows, of |mean forecast - mean measured|, 0 to 1.

    The expected calibration error of Guo et al. (arXiv 1706.04599), for rates in place of single outcomes.
    """
    return float(sum(share * abs(told - found) for share, told, found in reliability(forecast, measured)))


def reliability(forecast: Float[np.ndarray, " row"], measured: Float[np.ndarray, " row"]) -> list[tuple[float, float, float]]:
    """For each bin that holds any rows: its share of them, mean forecast and mean measured rate."""
    return [(float(part.mean()), float(forecast[part].mean()), float(measured[part].mean())) for part in _bins(forecast)]


def mean_measured(rows: pl.DataFrame, forecast: Float[np.ndarray, " row"]) -> list[tuple[float, Estimate]]:
    """For each bin that holds any rows: the mean forecast, and the mean measured rate with its interval by policy."""
    measured = rows["measured"].to_numpy()
    return [(float(forecast[part].mean()), over_policies(_mean, (measured[part],), rows.filter(part))) for part in _bins(forecast)]


def _bins(forecast: Float[np.ndarray, " row"]) -> list[Bool[np.ndarray, " row"]]:
    """Which rows lie in each of `NUM_BINS` bins of equal width; bins without any are left out."""
    numbers = np.minimum((forecast * NUM_BINS).astype(int), NUM_BINS - 1)
    return [numbers == number for number in np.unique(numbers)]


def error_difference(rows: pl.DataFrame, one: Float[np.ndarray, " row"], other: Float[np.ndarray, " row"], seed: int = 0) -> Estimate:
    """Mean absolute error of `one` less that of `other`, -1 to 1 (below 0: `one` is nearer), with an interval by policy."""
    gain = np.abs(one - rows["measured"].to_numpy()) - np.abs(other - rows["measured"].to_numpy())
    return over_policies(_mean, (gain,), rows, seed)


def _mean(values: Float[np.ndarray, " row"]) -> float:
    return float(values.mean())


def mean_error(rows: pl.DataFrame, forecast: Float[np.ndarray, " row"]) -> Estimate:
    """Mean absolute error of a forecast, 0 to 1, with an interval by policy."""
    return over_policies(_mean, (np.abs(forecast - rows["measured"].to_numpy()),), rows)
