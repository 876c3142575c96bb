"""Rates, means and tests with intervals clustered by scene.

The scene is the unit of independence: rows of one scene form one cluster, and all functions group rows by `partition`. Fewer than two
scenes give no ends, and no interval has width 0: where the data do not determine a width, the ends are None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

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

    The variance is that of the mean of cluster totals (linearised ratio). It gives an effective sample size, at which the exact
    binomial (Clopper-Pearson) interval is computed, after Korn and Graubard, Survey Methodology 24 (1998): valid near 0 and 1, never of
    width 0. Where no cluster differs from the mean, the number of scenes is the sample size. Raises `ValueError` on no rows.
    """
    frac, variance, num_scenes = _mean_and_variance(values, scenes)
    num_rows = len(values)
    if variance is None:
        return Rate(frac=frac, low=None, high=None, num_pairs=num_rows, num_scenes=num_scenes)
    spread = frac * (1 - frac)
    size = spread / variance if variance > NOTHING and spread > NOTHING else float(num_scenes)
    if variance > NOTHING:  # degrees of freedom are those of the clusters, not of an infinite sample
        tail = (1 + confidence) / 2
        size *= (stats.norm.ppf(tail) / stats.t.ppf(tail, num_scenes - 1)) ** 2
    low, high = exact_interval(frac, size, confidence)
    return Rate(frac=frac, low=low, high=high, num_pairs=num_rows, num_scenes=num_scenes)


def _mean_and_variance(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"]) -> tuple[float, float | None, int]:
    """Mean of the rows, the variance of that mean by linearised scene totals (None below two scenes), and the number of scenes."""
    if len(values) == 0:
        raise ValueError("found no rows; a mean needs one or more: leave the cell out")
    groups = partition(scenes)
    mean, number = float(np.mean(values)), groups.num_scenes
    if number < 2:
        return mean, None, number
    residual = groups.totals(values - mean)
    return mean, float((residual**2).sum() * number / (number - 1)) / len(values) ** 2, number


def _rounding_to_zero(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"]) -> tuple[float, float | None, int]:
    """`_mean_and_variance` with rounding errors set to 0: the variance is 0 exactly if no scene differs from the mean."""
    mean, variance, number = _mean_and_variance(values, scenes)
    scale = float(np.mean(np.square(values)))
    mean = 0.0 if abs(mean) <= ROUNDING * scale**0.5 else mean
    return mean, 0.0 if variance is not None and variance <= ROUNDING**2 * scale else variance, number


def exact_interval(frac: float, size: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson ends of a fraction at a sample size that need not be an integer."""
    tail, hits = (1 - confidence) / 2, frac * size
    low = float(stats.beta.ppf(tail, hits, size - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, size - hits)) if hits < size else 1.0
    return low, high


def clustered_mean(
    values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95, bounds: Bounds | None = None
) -> Estimate:
    """Mean of real values with Student's interval clustered by scene, n - 1 degrees of freedom for n scenes; ends are None for n < 2.

    Where no scene differs from the mean, Student's interval would have width 0. With `bounds` on every value, the exact binomial replaces
    it: none of n scenes differs, so a share up to u of all scenes may, each by as much as the bounds allow. Without bounds the ends are
    None. `bounds` also cut the ends. Raises `ValueError` on no rows.
    """
    mean, variance, number = _rounding_to_zero(values, scenes)
    if variance is None or (variance == 0 and bounds is None):
        return Estimate(value=mean, low=None, high=None, num_scenes=number)
    reach = float(stats.t.ppf((1 + confidence) / 2, number - 1)) * variance**0.5
    low, high = mean - reach, mean + reach
    if bounds is not None:
        if variance == 0:
            unseen = exact_interval(0.0, float(number), confidence)[1]
            low, high = mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean)
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value=mean, low=low, high=high, num_scenes=number)


def paired_difference(
    one: Float[np.ndarray, " row"],
    other: Float[np.ndarray, " row"],
    scenes: Int[np.ndarray, " row"],
    confidence: float = 0.95,
    bounds: Bounds | None = None,
) -> Estimate:
    """Mean of `other` - `one`, paired by row, with the interval of `clustered_mean`.

    Both have the same pairs in the same order, so effects that a pair shares cancel. `bounds` are those of a difference: (-1, 1) for rates.
    """
    return clustered_mean(other - one, scenes, confidence, bounds)


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


def scenes_needed(
    differences: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Number of scenes, 2 or more, at which a test finds the observed mean different from 0 with chance `power`; None for a mean of 0 or
    fewer than two scenes.

    Two-sided at 1 - `confidence`, by the normal formula with Guenther's correction for Student's t (American Statistician 35, 1981). Where
    no scene differs from the mean: the number that the sign test of `difference_p` needs.
    """
    mean, variance, number = _rounding_to_zero(differences, scenes)
    if variance is None or mean == 0:
        return None
    if variance == 0:
        return int(np.ceil(1 - np.log2(1 - confidence)))
    tail, wanted = float(stats.norm.ppf((1 + confidence) / 2)), float(stats.norm.ppf(power))
    return max(2, int(np.ceil((tail + wanted) ** 2 * variance * number / mean**2 + tail**2 / 2)))


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


def rate_difference(
    one: Float[np.ndarray, " row"],
    scenes_one: Int[np.ndarray, " row"],
    other: Float[np.ndarray, " other_row"],
    scenes_other: Int[np.ndarray, " other_row"],
    confidence: float = 0.95,
) -> Estimate:
    """Mean of `one` - mean of `other`, -1 to 1, for values in 0 to 1, with a two-sided interval clustered by scene.

    The two may have other numbers of rows, and scenes in common or not; what a scene shares cancels. Ends are recovered from those of
    `clustered_rate` of either side and the correlation of both over scenes (Zou and Donner, Statistics in Medicine 27, 2008; for pairs
    Newcombe, Statistics in Medicine 17, 1998): valid near 0 and 1, never of width 0, None where either side has none. `num_scenes` counts
    the scenes of either side. Raises `ValueError` on no rows.
    """
    first, second = clustered_rate(one, scenes_one, confidence), clustered_rate(other, scenes_other, confidence)
    scenes = np.union1d(scenes_one, scenes_other)
    value = first.frac - second.frac
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value=value, low=None, high=None, num_scenes=len(scenes))
    parts = [
        np.bincount(np.searchsorted(scenes, own), values - rate.frac, minlength=len(scenes))
        for own, values, rate in ((scenes_one, one, first), (scenes_other, other, second))
    ]
    scale = float(np.sqrt(np.square(parts[0]).sum() * np.square(parts[1]).sum()))
    shared = float(parts[0] @ parts[1]) / scale if scale > NOTHING else 0.0
    down, up = (first.frac - first.low, second.high - second.frac), (first.high - first.frac, second.frac - second.low)
    low, high = (np.sqrt(max(a**2 + b**2 - 2 * shared * a * b, 0.0)) for a, b in (down, up))
    return Estimate(value=value, low=max(value - float(low), -1.0), high=min(value + float(high), 1.0), num_scenes=len(scenes))
