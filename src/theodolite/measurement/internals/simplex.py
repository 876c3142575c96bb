"""Closeness of a factor's values to the corners of a regular simplex, in which all pairs of values are equally far apart.

From products across independent scenes (`split_products`): with a picture's own noise in the products, four values on a line look
regular in a wide model (0.69 for a true 0 at 3,584 channels, 100 scenes and noise ten steps long; 0.94 with fewer scenes).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from theodolite.measurement.internals.directions import NEGLIGIBLE
from theodolite.measurement.internals.split_products import FactorProducts


def split_regularity(products: FactorProducts) -> Float[np.ndarray, " replicate"] | None:
    """(Effective dimension - 1) / (values - 2), 0 (on a line) to 1 (regular simplex) up to error; None below three values.

    The effective dimension is (trace of the Gram)^2 over its squared Frobenius norm, both without the expectation of the noise. NaN where
    the norm is not above 0.
    """
    number = products.gram.shape[1]
    if number < 3:
        return None
    above = products.squared_norm > 0
    dimension = np.divide(products.squared_trace, products.squared_norm, out=np.full(len(above), np.nan), where=above)
    return np.asarray((dimension - 1) / (number - 2))


def simplex_regularity(placed: Float[np.ndarray, "replicate value dim"]) -> Float[np.ndarray, " replicate"] | None:
    """(Effective dimension - 1) / (values - 2) of centred points, 0 (on a line) to 1 (regular simplex); None below three values.

    The effective dimension is (trace of the Gram)^2 over its squared Frobenius norm. It is values - 1 exactly where all its non-zero
    eigenvalues are equal, that is, where the points are a regular simplex. NaN where all points are equal. Noise of the points is
    counted as regular.
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


def simplex_parts(gram: Float[np.ndarray, "value value"]) -> tuple[float, float]:
    """(root mean square deviation of pairwise cosines from -1/(values - 1), standard deviation over mean of norms) of centred points.

    `gram` holds their inner products. Cosines of a point at the centre count as 0. Both are 0 for a regular simplex.
    """
    number = len(gram)
    squares = gram.diagonal().clip(min=0)
    nonzero = squares > NEGLIGIBLE * squares.max()
    norms = np.sqrt(squares)
    scale = np.where(nonzero, norms, 1)
    unit = np.where(nonzero[:, None] & nonzero, gram / scale[:, None] / scale, 0).clip(-1, 1)
    cosines = unit[np.triu_indices(number, 1)]
    spread = float(norms.std() / norms.mean()) if norms.max() > 0 else 0.0
    return float(np.sqrt(np.square(cosines + 1 / (number - 1)).mean())), spread
