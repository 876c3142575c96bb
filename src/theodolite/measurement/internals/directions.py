"""Directions of a factor from interventions: differences after - before, the values they place, the subspace they span.

Everything here is linear in the differences, weighted by scene. A weight of 1 for all scenes gives the observed number, 0 for a
group of scenes a replicate of the jackknife, and random signs a shuffle: differences of the same size without a common direction. So
one matrix product gives all replicates of a factor at a site.
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

    One table serves all factors, so that a scene that is left out or turned is so for all of them.
    """

    table: Float[np.ndarray, "replicate scene"]
    num_groups: int


def draw_weights(num_scenes: int, num_shuffles: int, rng: np.random.Generator) -> Weights:
    """Ones, the jackknife's zeros (at most ten groups of scenes, drawn at random), and signs drawn for whole scenes."""
    num_groups = min(NUM_GROUPS, num_scenes)
    group = rng.permutation(num_scenes) % num_groups
    left_out = (group[None, :] != np.arange(num_groups)[:, None]).astype(np.float64)
    signs = rng.integers(0, 2, (num_shuffles, num_scenes)) * 2.0 - 1.0
    return Weights(np.concatenate([np.ones((1, num_scenes)), left_out, signs]), num_groups)


@dataclass(frozen=True, eq=False)
class Differences:
    """Differences of one factor, each turned to run from the lower value of its change to the higher, sorted by change and scene."""

    vectors: Float[np.ndarray, "pair dim"]
    low: Int[np.ndarray, " pair"]
    high: Int[np.ndarray, " pair"]
    scene: Int[np.ndarray, " pair"]
    num_values: int

    @property
    def num_scenes(self) -> int:
        return len(np.unique(self.scene))

    def by_change(self) -> list[tuple[int, int, slice]]:
        """(lower value, higher value, where its differences lie) for each change that occurs."""
        change = self.low * self.num_values + self.high
        starts = np.flatnonzero(np.diff(change, prepend=-1)) if len(change) else np.empty(0, dtype=np.int64)
        ends = [*starts[1:], len(change)]
        return [(int(self.low[start]), int(self.high[start]), slice(int(start), int(end))) for start, end in zip(starts, ends, strict=True)]

    def replaced(self, vectors: Float[np.ndarray, "pair inner"]) -> Differences:
        """The same pairs in other coordinates."""
        return Differences(vectors, self.low, self.high, self.scene, self.num_values)


def differences(changes: Interventions, vectors: Float[np.ndarray, "picture dim"], scenes: Int[np.ndarray, " scene"]) -> Differences:
    """After - before of each intervention, from vectors of pictures by their position in the pool.

    `scenes` are the ids that columns of weights stand for, ascending; those of the changes must be among them.
    """
    turned = changes.level_before > changes.level_after
    low = np.where(turned, changes.level_after, changes.level_before)
    high = np.where(turned, changes.level_before, changes.level_after)
    scene = np.searchsorted(scenes, changes.scene)
    order = np.lexsort((scene, high, low))
    sign = np.where(turned, -1, 1)[order, None].astype(vectors.dtype)
    moved = (vectors[changes.after[order]] - vectors[changes.before[order]]) * sign
    return Differences(moved, low[order], high[order], scene[order], len(changes.values))


def place_values(found: Differences, weights: Weights) -> Float[np.ndarray, "replicate value dim"]:
    """Positions of a factor's values about their centre, by least squares from weighted differences.

    Difference = position of the higher value - position of the lower; the solution of least norm has its centre at 0 (for each set of
    values that interventions join). In double precision, for the Grams that follow.
    """
    replicates, number = len(weights.table), found.num_values
    kind = found.vectors.dtype
    sums = np.zeros((replicates, number, found.vectors.shape[1]))
    normal = np.zeros((replicates, number, number))
    for low, high, where in found.by_change():
        weight = weights.table[:, found.scene[where]]
        total = weight.astype(kind) @ found.vectors[where]
        sums[:, high] += total
        sums[:, low] -= total
        counts = np.abs(weight).sum(axis=1)
        for one, other, sign in ((low, low, 1), (high, high, 1), (low, high, -1), (high, low, -1)):
            normal[:, one, other] += sign * counts
    return np.asarray(np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ sums)


def joins_all(found: Differences) -> bool:
    """Whether interventions lead from each value to each other, so that one centre serves all."""
    reached, edges = {0}, [(low, high) for low, high, _ in found.by_change()]
    for _ in range(found.num_values):
        reached |= {end for edge in edges if reached & set(edge) for end in edge}
    return len(reached) == found.num_values


def consistency(found: Differences, weights: Weights) -> Float[np.ndarray, " replicate"] | None:
    """Mean cosine of differences of the same change in different scenes, -1 to 1, averaged over changes; None where no two compare.

    From |sum of unit vectors|^2 - |sums within scenes|^2, so no matrix of pairs is made. Differences of length 0 have no direction and
    are left out. A replicate in which no two are left is NaN.
    """
    lengths = np.linalg.norm(found.vectors, axis=1)
    means = []
    for _, _, where in found.by_change():
        kept = lengths[where] > 0
        unit = found.vectors[where][kept] / lengths[where][kept, None]
        scenes, member = np.unique(found.scene[where][kept], return_inverse=True)
        if len(scenes) < 2:
            continue
        starts = np.flatnonzero(np.diff(member, prepend=-1))
        by_scene, sizes = np.add.reduceat(unit, starts, axis=0), np.bincount(member)
        weight = weights.table[:, scenes]
        total = (weight.astype(unit.dtype) @ by_scene).astype(np.float64)
        own = np.square(weight) @ np.square(by_scene, dtype=np.float64).sum(axis=1)
        kept_sizes = np.abs(weight) * sizes
        compared = kept_sizes.sum(axis=1) ** 2 - np.square(kept_sizes).sum(axis=1)
        across = np.square(total).sum(axis=1) - own
        means.append(np.divide(across, compared, out=np.full(len(across), np.nan), where=compared > 0))
    if not means:
        return None
    table = np.asarray(means)
    present = np.isfinite(table)
    return np.asarray(np.where(present, table, 0).sum(axis=0) / np.where(present.any(axis=0), present.sum(axis=0), np.nan))


def span(placed: Float[np.ndarray, "replicate value dim"], rank: int) -> Float[np.ndarray, "replicate direction dim"]:
    """Orthonormal rows along which values differ most, largest first; rows of 0 where there are fewer than `rank` such directions."""
    exact = placed.astype(np.float64, copy=False)
    values, vectors = np.linalg.eigh(exact @ exact.transpose(0, 2, 1))
    values, vectors = values[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    real = values > NEGLIGIBLE * values[:, :1]
    scale = np.divide(1, np.sqrt(np.where(real, values, 1)), out=np.zeros_like(values), where=real)
    return np.asarray((vectors * scale[:, None, :]).transpose(0, 2, 1) @ exact)


def factor_basis(
    changes: Interventions, vectors: Float[np.ndarray, "picture dim"], rank: int | None = None
) -> Float[np.ndarray, "dim direction"]:
    """Orthonormal columns that span a factor's subspace: up to `rank` directions along which its values differ most, largest first.

    `vectors` are by position in the pool. Without `rank`: number of values - 1. Fewer columns where the differences have fewer directions,
    none where they are all 0.
    """
    scenes = np.unique(changes.scene)
    found = differences(changes, vectors, scenes)
    ones = Weights(np.ones((1, len(scenes))), 0)
    rows = span(place_values(found, ones), found.num_values - 1 if rank is None else rank)[0]
    return np.ascontiguousarray(rows[np.any(rows != 0, axis=1)].T)


def pictures_by_scene(changes: Mapping[str, Interventions]) -> tuple[Int[np.ndarray, " picture"], Int[np.ndarray, " picture"]]:
    """The distinct pictures of all interventions, ascending, and the scene of each."""
    each = changes.values()
    pictures = np.concatenate([np.empty(0, dtype=np.int64), *(side for one in each for side in (one.before, one.after))])
    scenes = np.concatenate([np.empty(0, dtype=np.int64), *(one.scene for one in each for _ in range(2))])
    distinct, first = np.unique(pictures, return_index=True)
    return distinct, scenes[first]
