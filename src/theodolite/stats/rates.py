"""Rates, means and tests with intervals clustered by scene.

The scene is the unit of independence: rows of one scene form one cluster, and all functions group rows by `partition`. Fewer than two
scenes give no ends, and no interval has width 0: where the data do not determine a width, the ends are None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import special, stats

from theodolite.records.part import Estimate, Rate

Bounds = tuple[float, float]
NOTHING = 1e-15  # a variance of a rate below this is a rounding error: no scene differs from the mean
ROUNDING = 1e-12  # the same for real values, relative to their root mean square


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows grouped by scene: `member` is the index, 0 to `num_scenes` - 1, of each row's scene among the sorted scenes."""

    member: Int[np.ndarray, " row"]
    num_scenes: int

    def totals(self, values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " scene"]:
        """Sum of the values of each scene."""
        return np.bincount(self.member, values, minlength=self.num_scenes)


def partition(scenes: Int[np.ndarray, " row"]) -> Partition:
    """The grouping of rows by scene."""
    clusters, member = np.unique(scenes, return_inverse=True)
    return Partition(member, len(clusters))


def clustered_rate(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95) -> Rate:
    """Mean of values in 0 to 1 with a two-sided interval clustered by scene; ends are None for fewer than two scenes.

    The variance is that of the mean of cluster totals (linearised ratio). It gives an effective sample size, at most the number of rows, at
    which the exact binomial (Clopper-Pearson) interval is computed, after Korn and Graubard, Survey Methodology 24 (1998): valid near 0 and
    1, never of width 0. Where no cluster differs from the mean, the number of scenes is the sample size. Raises `ValueError` on no rows.
    """
    mean, residual, groups = _residuals(values, scenes)
    low, high = None, None
    if groups.num_scenes > 1:
        low, high = exact_interval(mean, _effective_size(values, mean, residual, groups, confidence), confidence)
    return Rate(frac=mean, low=low, high=high, num_pairs=len(values), num_scenes=groups.num_scenes)


def clustered_rates(columns: Float[np.ndarray, "column row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95) -> list[Rate]:
    """`clustered_rate` of many columns of values over the same rows, with one call of each special function for all of them."""
    if columns.shape[1] == 0:
        raise ValueError("found no rows; a mean needs one or more: leave the cell out")
    groups = partition(scenes)
    means, number, num_rows = columns.mean(axis=1), groups.num_scenes, columns.shape[1]
    if number < 2:
        return [Rate(frac=float(mean), low=None, high=None, num_pairs=num_rows, num_scenes=number) for mean in means]
    member = np.zeros((num_rows, number))
    member[np.arange(num_rows), groups.member] = 1
    residual = (columns - means[:, None]) @ member
    variance, spread = _variances(residual, num_rows), means * (1 - means)
    sure = (variance <= NOTHING) | (spread <= NOTHING)
    unit = spread / np.square(columns - means[:, None]).mean(axis=1).clip(min=NOTHING)
    size, tail = spread / np.where(sure, 1.0, variance), (1 + confidence) / 2
    all_equal = unit * num_rows**2 / float(np.square(np.bincount(groups.member)).sum())
    normal = special.ndtri(tail)
    safe = np.minimum(size, all_equal) * (normal / special.stdtrit(number - 1, tail)) ** 2
    estimated = size * (normal / special.stdtrit(_degrees(residual), tail)) ** 2
    sizes = np.where(sure, float(number), np.minimum(np.maximum(safe, estimated), unit * num_rows))
    hits, rest = means * sizes, (1 - confidence) / 2
    with np.errstate(invalid="ignore"):  # the ends of 0 and 1 are set apart
        low = np.where(hits > 0, special.betaincinv(hits, sizes - hits + 1, rest), 0.0)
        high = np.where(hits < sizes, special.betaincinv(hits + 1, sizes - hits, 1 - rest), 1.0)
    ends = zip(means.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Rate(frac=mean, low=one, high=other, num_pairs=num_rows, num_scenes=number) for mean, one, other in ends]


def _variances(residual: Float[np.ndarray, "column scene"], num_rows: int) -> Float[np.ndarray, " column"]:
    """`_variance` by column."""
    number = residual.shape[1]
    return np.asarray(np.square(residual).sum(axis=1) * number / (number - 1) / num_rows**2)


def _degrees(residual: Float[np.ndarray, "column scene"]) -> Float[np.ndarray, " column"]:
    """`degrees_of_freedom` by column."""
    square, fourth, number = np.square(residual).sum(axis=1), np.square(np.square(residual)).sum(axis=1), residual.shape[1]
    spread = fourth - square**2 / number
    even = spread <= ROUNDING * fourth
    return np.asarray(np.where(even, number - 1.0, np.clip(2 * square**2 / np.where(even, 1.0, spread), 1.0, number - 1.0)))


def _residuals(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"]) -> tuple[float, Float[np.ndarray, " scene"], Partition]:
    """Mean of the rows, the sum of (value - mean) of each scene, and the grouping. Raises `ValueError` on no rows."""
    if len(values) == 0:
        raise ValueError("found no rows; a mean needs one or more: leave the cell out")
    groups, mean = partition(scenes), float(np.mean(values))
    return mean, groups.totals(values - mean), groups


def _variance(residual: Float[np.ndarray, " scene"], num_rows: int) -> float:
    """Variance of a mean of rows, by linearised scene totals, for two scenes or more."""
    return float((residual**2).sum() * len(residual) / (len(residual) - 1)) / num_rows**2


def degrees_of_freedom(residual: Float[np.ndarray, " scene"]) -> float:
    """Degrees of freedom of a variance of scene totals, 1 to the number of scenes - 1, from their fourth moment.

    2 V^2 / var(V), Satterthwaite, Biometrics Bulletin 2 (1946): about twice the number of scenes that differ, where few do.
    """
    square, fourth, number = float((residual**2).sum()), float((residual**4).sum()), len(residual)
    spread = fourth - square**2 / number
    return float(number - 1) if spread <= ROUNDING * fourth else min(max(2 * square**2 / spread, 1.0), number - 1.0)


def _unit(values: Float[np.ndarray, " row"], mean: float) -> float:
    """mean (1 - mean) over the variance of the rows: 1 for rows of 0 and 1, larger for values in between."""
    return mean * (1 - mean) / max(float(np.mean(np.square(values - mean))), NOTHING)


def _effective_size(
    values: Float[np.ndarray, " row"], mean: float, residual: Float[np.ndarray, " scene"], groups: Partition, confidence: float
) -> float:
    """Number of independent rows of 0 and 1 whose rate is as certain as the mean of these clustered rows, for two scenes or more.

    Between two sizes that need no estimate: rows of a scene all equal, and all independent (Kish, Survey Sampling, 1965, 5.4 and 8.2).
    Student's quantile replaces the normal one: the estimated size has the degrees of freedom of its variance, since few scenes with a
    rare answer give no reliable variance; the smaller of the sizes has those of the scenes.
    """
    variance, number, spread = _variance(residual, len(values)), groups.num_scenes, mean * (1 - mean)
    if variance <= NOTHING or spread <= NOTHING:
        return float(number)
    size, unit, tail = spread / variance, _unit(values, mean), (1 + confidence) / 2
    all_equal = unit * len(values) ** 2 / float(np.square(np.bincount(groups.member)).sum())
    normal = special.ndtri(tail)
    safe = min(size, all_equal) * (normal / special.stdtrit(number - 1, tail)) ** 2
    estimated = size * (normal / special.stdtrit(degrees_of_freedom(residual), tail)) ** 2
    return float(min(max(safe, estimated), unit * len(values)))


def exact_interval(frac: float, size: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson ends of a fraction at a sample size that need not be an integer."""
    tail, hits = (1 - confidence) / 2, frac * size
    low = float(special.betaincinv(hits, size - hits + 1, tail)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, size - hits, 1 - tail)) if hits < size else 1.0
    return low, high


def rate_difference(
    one: Float[np.ndarray, " row"],
    scenes_one: Int[np.ndarray, " row"],
    other: Float[np.ndarray, " other_row"],
    scenes_other: Int[np.ndarray, " other_row"],
    confidence: float = 0.95,
) -> Estimate:
    """Mean of `one` - mean of `other`, -1 to 1, for values in 0 to 1, with a two-sided interval clustered by scene.

    The two may have other numbers of rows, and scenes in common or not; what a scene shares cancels. Ends are recovered from those of
    `clustered_rate` of either side and the correlation of both over scenes (Zou and Donner, Statistics in Medicine 27, 2008), with the
    continuity correction of a positive correlation (Newcombe, Statistics in Medicine 17, 1998, 2635, method 10): valid near 0 and 1, never
    of width 0, None where either side has none. `num_scenes` counts the scenes of either side. Raises `ValueError` on no rows.
    """
    first, second = clustered_rate(one, scenes_one, confidence), clustered_rate(other, scenes_other, confidence)
    scenes = np.union1d(scenes_one, scenes_other)
    totals = [
        np.bincount(np.searchsorted(scenes, own), values - rate.frac, minlength=len(scenes))
        for own, values, rate in ((scenes_one, one, first), (scenes_other, other, second))
    ]
    correlation = _correlation(totals, (one, other), (first, second))
    low, high = _difference_ends(first, second, correlation)
    return Estimate(value=first.frac - second.frac, low=low, high=high, num_scenes=len(scenes))


def _correlation(totals: Sequence[Float[np.ndarray, " scene"]], values: Sequence[Float[np.ndarray, " _"]], rates: Sequence[Rate]) -> float:
    """Correlation of two means over scenes, from the sums of their residuals; a positive one less Newcombe's continuity correction.

    The correction is half a hit of a scene, which matters where few scenes are hits: a positive correlation narrows the interval.
    """
    scale = float(np.sqrt(np.square(totals[0]).sum() * np.square(totals[1]).sum()))
    if scale <= NOTHING:
        return 0.0
    product, half = float(totals[0] @ totals[1]), 0.5
    for each, rate in zip(values, rates, strict=True):
        half *= len(each) / rate.num_scenes / _unit(each, rate.frac) ** 0.5
    return (product if product < 0 else max(product - half, 0.0)) / scale


def _difference_ends(one: Rate, other: Rate, correlation: float) -> tuple[float | None, float | None]:
    """Ends of one - other, -1 to 1, from the ends of either and their correlation (Zou and Donner 2008); None where either has none."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None, None
    value = one.frac - other.frac
    down, up = (one.frac - one.low, other.high - other.frac), (one.high - one.frac, other.frac - other.low)
    below, above = (max(a**2 + b**2 - 2 * correlation * a * b, 0.0) ** 0.5 for a, b in (down, up))
    return max(value - below, -1.0), min(value + above, 1.0)


def _rounding_to_zero(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"]) -> tuple[float, float | None, int]:
    """Mean, its variance and the number of scenes, rounding errors set to 0: the variance is 0 if no scene differs from the mean."""
    mean, residual, groups = _residuals(values, scenes)
    scale = float(np.mean(np.square(values)))
    mean = 0.0 if abs(mean) <= ROUNDING * scale**0.5 else mean
    if groups.num_scenes < 2:
        return mean, None, groups.num_scenes
    variance = _variance(residual, len(values))
    return mean, 0.0 if variance <= ROUNDING**2 * scale else variance, groups.num_scenes


def clustered_mean(
    values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95, bounds: Bounds | None = None
) -> Estimate:
    """Mean of real values with a two-sided interval clustered by scene; ends are None for fewer than two scenes.

    Student's with n - 1 degrees of freedom for n scenes; `bounds` on every value cut its ends. With bounds from 0 up, where rare values
    give a skewed mean, the interval is that of `clustered_rate`, in units of the upper bound.

    Where no scene differs from the mean, Student's interval would have width 0. With bounds, the exact binomial replaces it: none of n
    scenes differs, so a share up to u of all scenes may, each by as much as the bounds allow. Without bounds the ends are None.
    Raises `ValueError` on no rows.
    """
    mean, variance, number = _rounding_to_zero(values, scenes)
    if variance is None or (variance == 0 and bounds is None):
        return Estimate(value=mean, low=None, high=None, num_scenes=number)
    reach = float(special.stdtrit(number - 1, (1 + confidence) / 2)) * variance**0.5
    low, high = mean - reach, mean + reach
    if bounds is not None:
        if variance == 0:
            unseen = exact_interval(0.0, float(number), confidence)[1]
            low, high = mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean)
        elif bounds[0] == 0:
            rate = clustered_rate(values / bounds[1], scenes, confidence)
            low, high = (mean if end is None else bounds[1] * end for end in (rate.low, rate.high))
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value=mean, low=low, high=high, num_scenes=number)


def paired_difference(
    one: Float[np.ndarray, " row"],
    other: Float[np.ndarray, " row"],
    scenes: Int[np.ndarray, " row"],
    confidence: float = 0.95,
    bounds: Bounds | None = None,
) -> Estimate:
    """Mean of `other` - `one`, paired by row, with a two-sided interval clustered by scene; ends are None for fewer than two scenes.

    Both have the same pairs in the same order, so effects that a pair shares cancel. Without `bounds` the interval is that of
    `clustered_mean`. With those of a difference, (-1, 1) for rates, the mean is that of the increases less that of the decreases, each a
    rate of the largest change; the ends are recovered from the exact intervals of the two rates and their correlation over scenes, as in
    `rate_difference`. So rare changes that all go one way have valid ends: the other way is bounded, not absent.
    """
    difference = other - one
    mean = clustered_mean(difference, scenes, confidence, bounds)
    largest = float(np.abs(difference).max())
    if bounds is None or mean.low is None or _rounding_to_zero(difference, scenes)[1] == 0:
        return mean
    parts = [np.maximum(sign * difference, 0.0) / largest for sign in (1, -1)]
    rates = [clustered_rate(part, scenes, confidence) for part in parts]
    groups = partition(scenes)
    totals = [groups.totals(part - rate.frac) for part, rate in zip(parts, rates, strict=True)]
    low, high = _difference_ends(rates[0], rates[1], _correlation(totals, parts, rates))
    if low is None or high is None:
        return mean
    return mean.model_copy(update={"low": max(largest * low, bounds[0]), "high": min(largest * high, bounds[1])})


def difference_p(differences: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"]) -> float | None:
    """Two-sided p, 0 to 1, of a mean of 0, by Student's t clustered by scene; None for fewer than two scenes.

    Where no scene differs from the mean, t is undefined: a mean of 0 gives 1, any other the sign test of n scenes on one side, 2^(1 - n).
    """
    mean, variance, number = _rounding_to_zero(differences, scenes)
    if variance is None:
        return None
    if variance == 0:
        return 1.0 if mean == 0 else float(2.0 ** (1 - number))
    return float(2 * stats.t.sf(abs(mean) / variance**0.5, number - 1))


def bootstrap(
    statistic: Callable[..., float],
    arrays: Sequence[Shaped[np.ndarray, "row ..."]],
    scenes: Int[np.ndarray, " row"],
    rng: np.random.Generator,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """`statistic(*arrays)` with the interval of its values on `num_resamples` samples of whole scenes, drawn with replacement.

    Percentiles, widened for few scenes as Student's t is against the normal (the expanded percentile interval of Hesterberg, American
    Statistician 69, 2015): ends stay in the statistic's own range. A scene drawn twice contributes its rows twice. Samples with a
    non-finite statistic are left out. Ends are None for fewer than two scenes, where more than one sample in ten is left out, and where all
    samples give one value (never width 0). Raises `ValueError` on no rows and on a non-finite statistic of all rows.
    """
    if len(scenes) == 0:
        raise ValueError("found no rows; a statistic needs one or more: leave the cell out")
    value = float(statistic(*arrays))
    if not np.isfinite(value):
        raise ValueError(f"the statistic of all rows is {value}; a bootstrap needs a finite one")
    groups = partition(scenes)
    number = groups.num_scenes
    without_ends = Estimate(value=value, low=None, high=None, num_scenes=number)
    if number < 2:
        return without_ends
    values = np.array([statistic(*(array[rows] for array in arrays)) for rows in _resamples(groups, rng, num_resamples)], dtype=float)
    finite = values[np.isfinite(values)]
    if len(finite) < 0.9 * num_resamples or np.ptp(finite) <= ROUNDING * abs(value):
        return without_ends
    tail = float(stats.norm.cdf((number / (number - 1)) ** 0.5 * stats.t.ppf((1 - confidence) / 2, number - 1)))
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high), num_scenes=number)


def _resamples(groups: Partition, rng: np.random.Generator, num_resamples: int) -> Iterator[Int[np.ndarray, " drawn"]]:
    """Row indices of `num_scenes` scenes drawn with replacement; samples may differ in their number of rows."""
    order = np.argsort(groups.member, kind="stable")
    sizes = np.bincount(groups.member, minlength=groups.num_scenes)
    starts = np.cumsum(sizes) - sizes
    for _ in range(num_resamples):
        chosen = rng.integers(groups.num_scenes, size=groups.num_scenes)
        counts = sizes[chosen]
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[np.repeat(starts[chosen], counts) + offsets]


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjusted p, 0 to 1: rejecting those at or below q keeps the expected share of false rejections among the rejected at or below q.

    Benjamini and Hochberg, JRSS B 57 (1995); tests independent or positively dependent.
    """
    return np.asarray(stats.false_discovery_control(p)) if len(p) else p


def permutation_p(observed: float, null: Float[np.ndarray, " draw"]) -> float:
    """Permutation p in (0, 1] of values as large as `observed`: (1 + number of draws as large) / (1 + number of draws).

    One-sided; for two sides give absolute values. The observed arrangement counts as a draw, so p is never 0 (Phipson and Smyth 2010).
    """
    return float((1 + np.count_nonzero(null >= observed)) / (1 + len(null)))


def total_variation(before: Float[np.ndarray, "row choice"], after: Float[np.ndarray, "row choice"]) -> Float[np.ndarray, " row"]:
    """Total variation of two distributions, row by row, 0 to 1: half the summed absolute difference."""
    return np.asarray(np.abs(before - after).sum(axis=1) / 2)
