"""Overlap of two factors' subspaces, and the test that it is below a bound: a high p of "no larger than chance" shows no orthogonality.

The bound is tested as in an equivalence test (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987): orthogonal is
concluded only where a one-sided upper confidence limit lies below it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from theodolite.measurement.internals.split_products import FactorProducts
from theodolite.records.geometry import Equivalence, OverlapFinding
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, jackknife_ends, rounded

ORTHOGONAL_BOUND = 0.05  # of squared cosines: an angle of 77 degrees between two single directions
WHOLE_SIGNAL = 0.999


def overlap(
    one: Float[np.ndarray, "replicate direction dim"], other: Float[np.ndarray, "replicate direction2 dim"]
) -> Float[np.ndarray, " replicate"]:
    """Mean squared cosine of the principal angles of subspaces given by orthonormal rows (rows of 0 do not count), 0 to 1.

    The squared cosines sum to the squared norm of the product of the bases; the number of angles is the smaller dimension. NaN where a
    subspace has dimension 0.
    """
    shared = np.square(one @ other.transpose(0, 2, 1), dtype=np.float64).sum(axis=(1, 2))
    angles = np.minimum(np.any(one != 0, axis=2).sum(axis=1), np.any(other != 0, axis=2).sum(axis=1))
    return np.asarray(np.divide(shared, angles, out=np.full(len(shared), np.nan), where=angles > 0))


def split_overlap(cross: Float[np.ndarray, " replicate"], one: FactorProducts, other: FactorProducts) -> Float[np.ndarray, " replicate"]:
    """RV coefficient of two factors' positions, 0 (orthogonal) to 1 (the same scatter) up to error, without the bias of noise.

    |P Q'|^2 / (|P P'| |Q Q'|) in Frobenius norms: for two values each the squared cosine of the two directions. Escoufier, Biometrics 29
    (1973). NaN where a factor's norm is not above 0.
    """
    scale = np.sqrt(one.squared_norm.clip(min=0) * other.squared_norm.clip(min=0))
    return np.asarray(np.divide(cross, scale, out=np.full(len(cross), np.nan), where=scale > 0))


def shows_signal(products: FactorProducts, confidence: float) -> bool:
    """Whether the lower end of the signal's interval lies above 0; without it, ratios of products are noise over noise."""
    signal = products.signal
    if not np.isfinite(signal[0]):
        return False
    low, _ = jackknife_ends(float(signal[0]), signal[1:], (-np.inf, np.inf), confidence, unbiased=True)
    # Without noise all replicates are 1, which leaves no interval.
    return low > 0 if low is not None else bool(signal[0] > WHOLE_SIGNAL)


def judge_overlap(values: Float[np.ndarray, " replicate"], signal: bool, num_scenes: int, confidence: float) -> Equivalence:
    """The finding against `ORTHOGONAL_BOUND`; row 0 of `values` is observed, the others leave a group of scenes out.

    Undecided without `signal` of either factor, without an interval, and where the bound lies between the one-sided limits.
    """
    if not signal or not np.isfinite(values[0]):
        return Equivalence(estimate=None, lower=None, upper=None, bound=ORTHOGONAL_BOUND, finding="undecided")
    value, everywhere = float(values[0]), (-np.inf, np.inf)

    def cut(end: float | None) -> float | None:
        return None if end is None else round(float(np.clip(end, 0, 1)), DIGITS)

    low, high = jackknife_ends(value, values[1:], everywhere, confidence, unbiased=True)
    lower, upper = jackknife_ends(value, values[1:], everywhere, 2 * confidence - 1, unbiased=True)  # each one-sided at `confidence`
    finding: OverlapFinding = "undecided"
    if lower is not None and upper is not None:
        finding = "orthogonal" if upper < ORTHOGONAL_BOUND else "overlapping" if lower > ORTHOGONAL_BOUND else "undecided"
    estimate = rounded(Estimate(value=float(np.clip(value, 0, 1)), low=cut(low), high=cut(high), num_scenes=num_scenes))
    return Equivalence(estimate=estimate, lower=cut(lower), upper=cut(upper), bound=ORTHOGONAL_BOUND, finding=finding)
