"""Fractions with intervals, clustered by scene: the one place where rows become numbers with ends."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from theodolite.records.survey import Rate


def clustered_rate(values: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95) -> Rate:
    """Mean of values in 0 to 1 with a two-sided interval clustered by scene; ends are null for fewer than two scenes.

    The variance is that of the mean of cluster totals (linearised ratio). It gives an effective sample size, at which the exact
    binomial (Clopper-Pearson) interval is taken, after Korn and Graubard, Survey Methodology 24 (1998): valid near 0 and 1, never of
    width 0. Where no cluster differs from the mean, the number of scenes is the sample size. Raises `ValueError` on no rows.
    """
    if len(values) == 0:
        raise ValueError("a rate of no rows is nothing; leave the cell out")
    clusters, member = np.unique(scenes, return_inverse=True)
    num_rows, num_scenes = len(values), len(clusters)
    frac = float(np.mean(values))
    if num_scenes < 2:
        return Rate(frac=frac, low=None, high=None, num_pairs=num_rows, num_scenes=num_scenes)
    residual = np.bincount(member, values - frac)
    variance = float((residual**2).sum() * num_scenes / (num_scenes - 1)) / num_rows**2
    spread = frac * (1 - frac)
    size = spread / variance if variance > 1e-15 and spread > 1e-15 else float(num_scenes)
    if variance > 1e-15:  # degrees of freedom are those of the clusters, not of an infinite sample
        tail = (1 + confidence) / 2
        size *= (stats.norm.ppf(tail) / stats.t.ppf(tail, num_scenes - 1)) ** 2
    low, high = exact_interval(frac, size, confidence)
    return Rate(frac=frac, low=low, high=high, num_pairs=num_rows, num_scenes=num_scenes)


def exact_interval(frac: float, size: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson ends of a fraction at a sample size that need not be whole."""
    tail, hits = (1 - confidence) / 2, frac * size
    low = float(stats.beta.ppf(tail, hits, size - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, size - hits)) if hits < size else 1.0
    return low, high


def total_variation(before: Float[np.ndarray, "row choice"], after: Float[np.ndarray, "row choice"]) -> Float[np.ndarray, " row"]:
    """Half the summed absolute difference of two distributions, 0 to 1."""
    return np.asarray(np.abs(before - after).sum(axis=1) / 2)
