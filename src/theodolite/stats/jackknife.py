"""Jackknife intervals over scenes or groups of scenes, and rounding that makes estimates repeat to the byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from theodolite.records.part import Estimate
from theodolite.stats.rates import ROUNDING, degrees_of_freedom, partition

DIGITS = 6
INSIDE = 1 - 1e-9  # the largest cosine whose Fisher z is finite
Scale = tuple[Callable[[float | np.ndarray], float | np.ndarray], Callable[[float], float]]  # a monotone transform and its inverse


def rounded(estimate: Estimate) -> Estimate:
    """The estimate with value and ends rounded to six places; None stays None."""
    low, high = (None if end is None else round(end, DIGITS) for end in (estimate.low, estimate.high))
    return Estimate(value=round(estimate.value, DIGITS), low=low, high=high, num_scenes=estimate.num_scenes)


def jackknife_ends(
    value: float, left_out: Float[np.ndarray, " group"], bounds: tuple[float, float], confidence: float, *, unbiased: bool = False
) -> tuple[float | None, float | None]:
    """Ends of a two-sided interval of a value, from its values with each group of scenes left out, cut to its bounds.

    Delete-a-group jackknife (Kott, Journal of Official Statistics 17, 2001) with Student's quantile, at the degrees of freedom that the
    fourth moment of the values supports. The interval is centred on the value less its jackknife bias, and the bias adds to the error: what
    noise adds to or takes from a squared length is not smaller than the error. An `unbiased` value (of products across independent scenes)
    has no bias to take out, and its estimate would only add noise. A cosine, with bounds -1 and 1, on the scale of Fisher's z;
    with other bounds, the outer ends of two scales, the value's own and the variance-stabilising arcsine, since neither holds near both
    bounds; without finite bounds, on the value's own. None for fewer than two groups, for a non-finite value, and where all values are
    equal (never width 0).
    """
    if len(left_out) < 2 or not np.isfinite(left_out).all() or float(np.ptp(left_out)) < 10.0**-DIGITS:
        return None, None
    low, high = bounds
    own: Scale = (lambda each: each, lambda end: end)
    scales: list[Scale] = [own]
    if bounds == (-1.0, 1.0):
        scales = [(lambda each: np.arctanh(np.clip(each, -INSIDE, INSIDE)), np.tanh)]
    elif np.isfinite(bounds).all():
        span = high - low
        arcsine: Scale = (
            lambda each: np.arcsin(np.sqrt(np.clip((each - low) / span, 0.0, 1.0))),
            lambda end: low + span * np.sin(np.clip(end, 0.0, np.pi / 2)) ** 2,
        )
        scales = [own, arcsine]
    ends = [_ends_on(scale, value, left_out, confidence, unbiased) for scale in scales]
    return max(min(end for end, _ in ends), low), min(max(end for _, end in ends), high)


def _ends_on(scale: Scale, value: float, left_out: Float[np.ndarray, " group"], confidence: float, unbiased: bool) -> tuple[float, float]:
    """Bias-corrected jackknife ends on a scale, transformed back to the value's own."""
    transform, inverse = scale
    number, centre, values = len(left_out), float(transform(value)), np.asarray(transform(left_out))
    bias = 0.0 if unbiased else (number - 1) * (float(values.mean()) - centre)
    residual = values - values.mean()
    variance = (number - 1) / number * float(np.square(residual).sum()) + bias**2
    reach = float(special.stdtrit(degrees_of_freedom(residual), (1 + confidence) / 2)) * variance**0.5
    return float(inverse(centre - bias - reach)), float(inverse(centre - bias + reach))


def clustered_ratio(
    top: Float[np.ndarray, " row"], bottom: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float = 0.95
) -> Estimate:
    """sum(top) / sum(bottom), above 0, of positive quantities, with a two-sided interval clustered by scene.

    Jackknife by scene of the logarithm, whose error is near symmetric where that of the ratio is not, with Student's quantile at the
    degrees of freedom that the fourth moment supports (a few scenes with large sums make the variance uncertain); the logarithm's bias adds
    to the error. Ends are None for fewer
    than two scenes, where a scene left out leaves nothing above or below, and where all scenes have one ratio (never width 0). Raises
    `ValueError` on no rows.
    """
    if len(top) == 0:
        raise ValueError("found no rows; a ratio needs one or more: leave the cell out")
    groups = partition(scenes)
    above, below = groups.totals(top), groups.totals(bottom)
    value, number = float(above.sum() / below.sum()), groups.num_scenes
    others = above.sum() - above, below.sum() - below
    without_ends = Estimate(value=value, low=None, high=None, num_scenes=number)
    if number < 2 or min(each.min() for each in others) <= ROUNDING * min(above.sum(), below.sum()):
        return without_ends
    logs = np.log(others[0] / others[1])
    residual, bias = logs - logs.mean(), (number - 1) * float(logs.mean() - np.log(value))
    error = float((number - 1) / number * np.square(residual).sum() + bias**2) ** 0.5
    if error <= ROUNDING:
        return without_ends
    reach = float(special.stdtrit(degrees_of_freedom(residual), (1 + confidence) / 2)) * error
    return Estimate(value=value, low=value * float(np.exp(-reach)), high=value * float(np.exp(reach)), num_scenes=number)
