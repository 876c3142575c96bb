"""Closeness of a factor's values to the corners of a regular simplex, in which all pairs of values are equally far apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from theodolite.measurement.internals.directions import NEGLIGIBLE


def simplex_regularity(placed: Float[np.ndarray, "replicate value dim"]) -> Float[np.ndarray, " replicate"] | None:
    """(Effective dimension - 1) / (values - 2) of centred points, 0 (on a line) to 1 (regular simplex); None below three values.

    The effective dimension is (trace of the Gram)^2 over its squared Frobenius norm. It is values - 1 exactly where all its non-zero
    eigenvalues are equal, that is, where the points are a regular simplex. NaN where all points are equal.
    """
    number = placed.shape[1]
    if number < 3:
        return None
    exact = placed.astype(np.float64, copy=False)
    gram = exact @ exact.transpose(0, 2, 1)
    trace = np.trace(gram, axis1=1, axis2=2)
    size = np.square(gram).sum(axis=(1, 2))
    dimension = np.divide(trace**2, size, out=np.full(len(gram), np.nan), where=size > 0)
    return np.asarray((dimension - 1) / (number - 2))


def simplex_parts(points: Float[np.ndarray, "value dim"]) -> tuple[float, float]:
    """(root mean square deviation of pairwise cosines from -1/(values - 1), standard deviation over mean of norms) of centred points.

    Cosines of a point at the centre count as 0. Both are 0 for a regular simplex.
    """
    number = len(points)
    exact = points.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    nonzero = norms > NEGLIGIBLE**0.5 * norms.max()
    unit = np.where(nonzero[:, None], exact / np.where(nonzero, norms, 1)[:, None], 0)
    cosines = (unit @ unit.T)[np.triu_indices(number, 1)]
    spread = float(norms.std() / norms.mean()) if norms.max() > 0 else 0.0
    return float(np.sqrt(np.square(cosines + 1 / (number - 1)).mean())), spread
