"""Jackknife intervals over groups of scenes, and rounding that makes estimates repeat to the byte."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from theodolite.records.part import Estimate

DIGITS = 6


def rounded(estimate: Estimate) -> Estimate:
    """The estimate with value and ends rounded to six places; None stays None."""
    low, high = (None if end is None else round(end, DIGITS) for end in (estimate.low, estimate.high))
    return Estimate(value=round(estimate.value, DIGITS), low=low, high=high, num_scenes=estimate.num_scenes)


def jackknife_ends(
    value: float, left_out: Float[np.ndarray, " group"], bounds: tuple[float, float], confidence: float
) -> tuple[float | None, float | None]:
    """Ends of Student's interval about a value, from its values with each group of scenes left out, cut to its bounds.

    None for fewer than two groups, for a non-finite value, and where all values are equal (never width 0). Delete-a-group jackknife:
    Kott, Journal of Official Statistics 17 (2001).
    """
    number = len(left_out)
    if number < 2 or not np.isfinite(left_out).all() or float(np.ptp(left_out)) < 10.0**-DIGITS:
        return None, None
    variance = (number - 1) / number * float(np.square(left_out - left_out.mean()).sum())
    half = float(stats.t.ppf((1 + confidence) / 2, number - 1)) * variance**0.5
    return max(value - half, bounds[0]), min(value + half, bounds[1])
