"""Directions of a factor from interventions: differences after - before, positions of its values, the subspace that they span.

All of it is linear in the differences, weighted by scene. Weights of 1 give the observed statistic, weights of 0 for a group of scenes a
jackknife replicate, and random signs a shuffle: differences of the same size without a common direction. So one matrix product gives
all replicates of a factor at a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from theodolite.measurement.pairs.interventions import Interventions

NUM_GROUPS = 10
# Squares of singular values below this share of the largest are rounding.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of scenes by replicate: row 0 observed, then one row for each group left out, then the shuffles.

    All factors share one table, so a scene is left out or has its sign flipped for all of them at once.
    """

    table: Float[np.ndarray, "replicate scene"]
    num_groups: int


def draw_weights(num_scenes: int, num_shuffles: int, rng: np.random.Generator) -> Weights:
    """Ones, the jackknife's zeros (at most ten random groups of scenes), and one random sign a scene for each shuffle."""
    num_groups = min(NUM_GROUPS, num_scenes)
    group = rng.permutation(num_scenes) % num_groups
    left_out = (group[None, :] != np.arange(num_groups)[:, None]).astype(np.float64)
    signs = rng.integers(0, 2, (num_shuffles, num_scenes)) * 2.0 - 1.0
    return Weights(np.concatenate([np.ones((1, num_scenes)), left_out, signs]), num_groups)


@dataclass(frozen=True, eq=False)
class Differences:
    """Difference vectors of one factor, signed from the lower value of a change to the higher, sorted by change and scene."""

    vectors: Float[np.ndarray, "pair dim"]
    low: Int[np.ndarray, " pair"]
    high: Int[np.ndarray, " pair"]
    scene: Int[np.ndarray, " pair"]
    num_values: int

    @property
    def num_scenes(self) -> int:
        return len(np.unique(self.scene))

    def by_change(self) -> list[tuple[int, int, slice]]:
        """(lower value, higher value, slice of its differences) for each change that occurs."""
        change = self.low * self.num_values + self.high
        starts = np.flatnonzero(np.diff(change, prepend=-1)) if len(change) else np.empty(0, dtype=np.int64)
        ends = [*starts[1:], len(change)]
        return [(int(self.low[start]), int(self.high[start]), slice(int(start), int(end))) for start, end in zip(starts, ends, strict=True)]

    def replaced(self, vectors: Float[np.ndarray, "pair inner"]) -> Differences:
        """The same pairs with other vectors."""
        return Differences(vectors, self.low, self.high, self.scene, self.num_values)


def differences(interventions: Interventions, vectors: Float[np.ndarray, "picture dim"], scenes: Int[np.ndarray, " scene"]) -> Differences:
    """After - before of each intervention; `vectors` are by position in the pool.

    `scenes` are the ascending scene ids of the columns of `Weights`; they must include all scenes of the interventions.
    """
    downward = interventions.level_before > interventions.level_after
    low = np.where(downward, interventions.level_after, interventions.level_before)
    high = np.where(downward, interventions.level_before, interventions.level_after)
    scene = np.searchsorted(scenes, interventions.scene)
    order = np.lexsort((scene, high, low))
    sign = np.where(downward, -1, 1)[order, None].astype(vectors.dtype)
    moved = (vectors[interventions.after[order]] - vectors[interventions.before[order]]) * sign
    return Differences(moved, low[order], high[order], scene[order], len(interventions.values))


def place_values(pairs: Differences, weights: Weights) -> Float[np.ndarray, "replicate value dim"]:
    """Positions of a factor's values about their centre, by least squares from weighted differences.

    Difference = position of the higher value - position of the lower; the minimum-norm solution is centred at 0 (for each set of values
    that interventions connect). In double precision, for the Gram matrices computed from it.
    """
    replicates, number = len(weights.table), pairs.num_values
    kind = pairs.vectors.dtype
    sums = np.zeros((replicates, number, pairs.vectors.shape[1]))
    normal = np.zeros((replicates, number, number))
    for low, high, where in pairs.by_change():
        weight = weights.table[:, pairs.scene[where]]
        total = weight.astype(kind) @ pairs.vectors[where]
        sums[:, high] += total
        sums[:, low] -= total
        counts = np.abs(weight).sum(axis=1)
        for one, other, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
            normal[:, one, other] += sign * counts
    return np.asarray(np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ sums)


def connects_all(pairs: Differences) -> bool:
    """Whether the interventions connect all values, so that all positions share one centre."""
    reached, edges = {0}, [(low, high) for low, high, _ in pairs.by_change()]
    for _ in range(pairs.num_values):
        reached |= {end for edge in edges if reached & set(edge) for end in edge}
    return len(reached) == pairs.num_values


def consistency(pairs: Differences, weights: Weights) -> Float[np.ndarray, " replicate"] | None:
    """Mean cosine between differences of one change in different scenes, -1 to 1, averaged over changes; None where no two can be compared.

    From |sum of unit vectors|^2 - |sums within scenes|^2, without a matrix of pairs. Differences of length 0 are left out. A replicate
    with fewer than two differences is NaN.
    """
    lengths = np.linalg.norm(pairs.vectors, axis=1)
    means = []
    for _, _, where in pairs.by_change():
        nonzero = lengths[where] > 0
        unit = pairs.vectors[where][nonzero] / lengths[where][nonzero, None]
        scenes, member = np.unique(pairs.scene[where][nonzero], return_inverse=True)
        if len(scenes) < 2:
            continue
        starts = np.flatnonzero(np.diff(member, prepend=-1))
        by_scene, sizes = np.add.reduceat(unit, starts, axis=0), np.bincount(member)
        weight = weights.table[:, scenes]
        total = (weight.astype(unit.dtype) @ by_scene).astype(np.float64)
        own = np.square(weight) @ np.square(by_scene, dtype=np.float64).sum(axis=1)
        weighted_sizes = np.abs(weight) * sizes
        compared = weighted_sizes.sum(axis=1) ** 2 - np.square(weighted_sizes).sum(axis=1)
        across = np.square(total).sum(axis=1) - own
        means.append(np.divide(across, compared, out=np.full(len(across), np.nan), where=compared > 0))
    if not means:
        return None
    table = np.asarray(means)
    present = np.isfinite(table)
    return np.asarray(np.where(present, table, 0).sum(axis=0) / np.where(present.any(axis=0), present.sum(axis=0), np.nan))


def span(placed: Float[np.ndarray, "replicate value dim"], rank: int) -> Float[np.ndarray, "replicate direction dim"]:
    """Principal directions of the values' positions, as orthonormal rows, largest first; rows of 0 beyond the rank of the positions."""
    exact = placed.astype(np.float64, copy=False)
    values, vectors = np.linalg.eigh(exact @ exact.transpose(0, 2, 1))
    values, vectors = values[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    real = values > NEGLIGIBLE * values[:, :1]
    scale = np.divide(1, np.sqrt(np.where(real, values, 1)), out=np.zeros_like(values), where=real)
    return np.asarray((vectors * scale[:, None, :]).transpose(0, 2, 1) @ exact)


def factor_basis(
    interventions: Interventions, vectors: Float[np.ndarray, "picture dim"], rank: int | None = None
) -> Float[np.ndarray, "dim direction"]:
    """Orthonormal basis of a factor's subspace: up to `rank` principal directions of its values' positions, largest first.

    `vectors` are by position in the pool. The default rank is the number of values - 1. Fewer columns where the differences have lower
    rank, none where they are all 0.
    """
    scenes = np.unique(interventions.scene)
    ones = Weights(np.ones((1, len(scenes))), 0)
    placed = place_values(differences(interventions, vectors, scenes), ones)
    rows = span(placed, len(interventions.values) - 1 if rank is None else rank)[0]
    return np.ascontiguousarray(rows[np.any(rows != 0, axis=1)].T)


def pictures_by_scene(interventions: Mapping[str, Interventions]) -> tuple[Int[np.ndarray, " picture"], Int[np.ndarray, " picture"]]:
    """The distinct pictures of all interventions, ascending, and the scene of each."""
    none, values = np.empty(0, dtype=np.int64), interventions.values()
    pictures = np.concatenate([none, *(side for each in values for side in (each.before, each.after))])
    scenes = np.concatenate([none, *(each.scene for each in values for _ in range(2))])
    distinct, first = np.unique(pictures, return_index=True)
    return distinct, scenes[first]
