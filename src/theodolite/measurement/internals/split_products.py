"""Inner products of factors' value positions across independent quarters of the scenes, in which noise has expectation 0.

An estimated position is the true one plus noise. In the product of a position with itself the noise adds its own squared size, which
in thousands of channels exceeds that of the signal; between positions from different scenes the noise is independent and adds nothing.
Products of two such products, as squared norms need them, take four sets of scenes: hence quarters. The same idea as cross-validated
distances: Walther et al., NeuroImage 137 (2016).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from theodolite.measurement.internals.directions import Differences, Weights, place_values

NUM_SPLITS = 8
NUM_PARTS = 4
# The three ways to pair four quarters: each side of a pairing is one product, and the two products share no scene.
PAIRINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
LEAST_SPLITS = 2


@dataclass(frozen=True, eq=False)
class FactorProducts:
    """Of one factor's centred positions P, by replicate (row 0 observed, then a group of scenes left out each); NaN where too few
    quarters join all values.

    `gram` estimates P P', `squared_trace` (tr P P')^2, `squared_norm` the squared Frobenius norm of P P', and `products` all
    (P P')_ij (P P')_kl, where they were asked for. `plug_in` is the trace of P P' with its noise.
    """

    gram: Float[np.ndarray, "replicate value value"]
    squared_trace: Float[np.ndarray, " replicate"]
    squared_norm: Float[np.ndarray, " replicate"]
    plug_in: Float[np.ndarray, " replicate"]
    products: Float[np.ndarray, "replicate value value value value"] | None

    @property
    def signal(self) -> Float[np.ndarray, " replicate"]:
        """Share of the positions' squared size that repeats across scenes, about 0 (noise) to 1; NaN where nothing moves."""
        trace = np.trace(self.gram, axis1=1, axis2=2)
        return np.asarray(np.divide(trace, self.plug_in, out=np.full(len(trace), np.nan), where=self.plug_in > 0))


@dataclass(frozen=True, eq=False)
class SplitProducts:
    """Products within each factor, and for each two factors the squared Frobenius norm of P_one P_other', by replicate."""

    factors: Mapping[str, FactorProducts]
    cross: Mapping[tuple[str, str], Float[np.ndarray, " replicate"]]


@dataclass
class _Means:
    """Running means over splits, by name; a replicate counts in the splits in which it is finite."""

    sums: dict[object, np.ndarray] = field(default_factory=dict)
    counts: dict[object, np.ndarray] = field(default_factory=dict)

    def add(self, name: object, values: np.ndarray, valid: Bool[np.ndarray, " replicate"]) -> None:
        shaped = valid.reshape(-1, *[1] * (values.ndim - 1))
        self.sums[name] = self.sums.get(name, 0) + np.where(shaped, values, 0)
        self.counts[name] = self.counts.get(name, 0) + valid

    def mean(self, name: object) -> np.ndarray:
        sums, counts = self.sums[name], self.counts[name]
        shaped = np.where(counts >= LEAST_SPLITS, counts, np.nan).reshape(-1, *[1] * (sums.ndim - 1))
        return np.asarray(sums / shaped)


def split_products(
    by_factor: Mapping[str, Differences], weights: Weights, rng: np.random.Generator, whole: Collection[str] = ()
) -> SplitProducts:
    """Means over `NUM_SPLITS` random partitions of the scenes into quarters, for the observed scenes and each group left out.

    `whole` names the factors whose `products` are wanted. Only one split's positions are in memory.
    """
    base = weights.table[: 1 + weights.num_groups]
    names, means = sorted(by_factor), _Means()
    for _ in range(NUM_SPLITS):
        part = rng.permutation(base.shape[1]) % NUM_PARTS
        table = (base[:, None, :] * (part == np.arange(NUM_PARTS)[:, None])).reshape(-1, base.shape[1])
        placed = [place_values(by_factor[name], Weights(table, 0)) for name in names]
        valid = {name: np.asarray(joins_all(by_factor[name], table).reshape(len(base), NUM_PARTS).all(axis=1)) for name in names}
        stacked = np.concatenate(placed, axis=1).reshape(len(base), NUM_PARTS, -1, placed[0].shape[2])
        across = {(one, other): stacked[:, one] @ stacked[:, other].transpose(0, 2, 1) for one, other in combinations(range(NUM_PARTS), 2)}
        ends = np.cumsum([0, *(each.shape[1] for each in placed)])
        where = {name: slice(int(ends[at]), int(ends[at + 1])) for at, name in enumerate(names)}
        for name in names:
            _add_factor(means, name, {pair: product[:, where[name], where[name]] for pair, product in across.items()}, valid[name], whole)
        for one, other in combinations(names, 2):
            _add_cross(means, (one, other), across, (where[one], where[other]), np.asarray(valid[one] & valid[other]))
    observed = {name: place_values(by_factor[name], Weights(base, 0)) for name in names}
    return SplitProducts(
        {
            name: FactorProducts(
                gram=means.mean((name, "gram")),
                squared_trace=means.mean((name, "trace")),
                squared_norm=means.mean((name, "norm")),
                plug_in=np.square(observed[name]).sum(axis=(1, 2)),
                products=means.mean((name, "products")) if name in whole else None,
            )
            for name in names
        },
        {pair: means.mean(pair) for pair in combinations(names, 2)},
    )


def _add_factor(
    means: _Means,
    name: str,
    products: Mapping[tuple[int, int], Float[np.ndarray, "replicate value value"]],
    valid: Bool[np.ndarray, " replicate"],
    whole: Collection[str],
) -> None:
    even = {pair: (each + each.transpose(0, 2, 1)) / 2 for pair, each in products.items()}
    means.add((name, "gram"), np.mean(list(even.values()), axis=0), valid)
    for one, other in PAIRINGS:
        traces = np.trace(even[one], axis1=1, axis2=2) * np.trace(even[other], axis1=1, axis2=2)
        means.add((name, "trace"), traces, valid)
        means.add((name, "norm"), (even[one] * even[other]).sum(axis=(1, 2)), valid)
        if name in whole:
            for first, second in ((even[one], even[other]), (even[other], even[one])):
                means.add((name, "products"), np.einsum("rij,rkl->rijkl", first, second), valid)


def _add_cross(
    means: _Means,
    pair: tuple[str, str],
    across: Mapping[tuple[int, int], Float[np.ndarray, "replicate row column"]],
    where: tuple[slice, slice],
    valid: Bool[np.ndarray, " replicate"],
) -> None:
    """The product of four different quarters: a scene that moved both factors shares its first picture's noise between them."""
    for one, other in PAIRINGS:
        for rows, columns in (where, where[::-1]):
            means.add(pair, (across[one][:, rows, columns] * across[other][:, rows, columns]).sum(axis=(1, 2)), valid)


def joins_all(pairs: Differences, table: Float[np.ndarray, "replicate scene"]) -> Bool[np.ndarray, " replicate"]:
    """Whether the pairs of the scenes with weight join all values, by replicate: only then positions share one centre."""
    number = pairs.num_values
    normal = np.zeros((len(table), number, number))
    for low, high, where in pairs.by_change():
        counts = np.abs(table[:, pairs.scene[where]]).sum(axis=1)
        for one, other, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
            normal[:, one, other] += sign * counts
    return np.asarray(np.linalg.eigvalsh(normal)[:, min(1, number - 1)] > 1e-9)
