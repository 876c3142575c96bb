"""The causal inner product of hidden vectors, from the covariance of the unembedding.

Park, Choe and Veitch, "The Linear Representation Hypothesis and the Geometry of Large Language Models" (arXiv 2311.03658), section 3:
unembedding vectors g are compared as g' Cov(g)^-1 g', and the Riesz isomorphism turns this into x' Cov(g) y for hidden vectors. It does not
change when hidden space is re-based by A^-T and the unembedding by A, which leaves every logit the same; the Euclidean product does.
The theory covers the last hidden state only; at earlier sites of the same width the product is a heuristic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

WORDS_AT_ONCE = 8_192
SINGULAR = 1e-10


@dataclass(frozen=True, eq=False)
class CausalProduct:
    """`x @ factor` is the vector whose Euclidean products are the causal products of x. A singular Cov is not regularised."""

    factor: Float[np.ndarray, "dim inner"]
    rank: int
    num_words: int

    @property
    def width(self) -> int:
        return len(self.factor)

    def apply(self, vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row inner"]:
        return np.asarray(vectors @ self.factor.astype(vectors.dtype, copy=False))


def causal_product(unembedding: Float[np.ndarray, "word dim"]) -> CausalProduct:
    """The product from the covariance of the unembedding's rows, each word counted once (the paper draws words uniformly).

    `factor` is an F with F F' = Cov: the Cholesky factor where Cov is regular, else the square root over the eigenvectors of non-zero
    eigenvalues. Raises `ValueError` for fewer than two words.
    """
    num_words, dim = unembedding.shape
    if num_words < 2:
        raise ValueError(f"a covariance needs at least two words; the unembedding has {num_words}")
    covariance = _covariance(unembedding)
    try:
        factor = linalg.cholesky(covariance, lower=True)
        # A pivot within rounding is a direction in which no word has a component.
        if np.square(np.diag(factor)).min() > SINGULAR * np.diag(covariance).max():
            return CausalProduct(factor, dim, num_words)
    except linalg.LinAlgError:
        pass
    values, vectors = linalg.eigh(covariance)
    nonzero = values > SINGULAR * max(float(values[-1]), 0.0)
    return CausalProduct(np.asarray(vectors[:, nonzero] * np.sqrt(values[nonzero])), int(nonzero.sum()), num_words)


def _covariance(rows: Float[np.ndarray, "word dim"]) -> Float[np.ndarray, "dim dim"]:
    centre = rows.mean(axis=0, dtype=np.float64)
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), WORDS_AT_ONCE):
        # In double precision: with fewer words than dimensions, rounding in single precision would count as rank.
        block = rows[start : start + WORDS_AT_ONCE].astype(np.float64) - centre
        total += block.T @ block
    return np.asarray(total / len(rows))
