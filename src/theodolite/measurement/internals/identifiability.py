"""Identifiability of factors from a representation up to simple maps: DCI, MCC with optimal matching, block-wise linear and nonlinear R2.

All of it is held out by scene. DCI: Eastwood and Williams, ICLR 2018. MCC: after Hyvarinen and Morioka, NeurIPS 2016. Block-wise R2:
after von Kügelgen et al., NeurIPS 2021. DCI and MCC are about the representation's own channels: high linear R2 with low DCI and MCC
means rotated axes, which is no loss to a linear readout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from theodolite.measurement.internals.axes import (
    FOREST_GROUPS,
    MAX_AXES,
    NUM_GROUPS,
    AxesRead,
    FactorLevels,
    choose_axes,
    dci_numbers,
    jackknifed,
    match_coordinates,
    measure_dci,
)
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.probes import PENALTIES, Folds, assign_folds, factorise, factorise_gram, one_hot, standardised
from theodolite.measurement.pairs.interventions import Interventions, split_scenes
from theodolite.records.identifiability import Blocks, Identifiability, SiteIdentifiability
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, clustered_ratio, rounded

MAX_PICTURES = 1000
WIDTHS = (0.25, 0.5, 1.0, 4.0)
KERNEL_PENALTIES = tuple(float(10.0**power) for power in range(-5, 2))


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """Pictures with known values of all factors. `levels` has one column a factor."""

    factors: tuple[str, ...]
    num_levels: tuple[int, ...]
    picture: Int[np.ndarray, " row"]
    levels: Int[np.ndarray, "row factor"]
    scene: Int[np.ndarray, " row"]


def known_pictures(interventions: Mapping[str, Interventions]) -> KnownPictures | str:
    """The pictures with known values of all factors, or the reason why there are none.

    Where the interventions of a scene all start from one base picture, each gives the base's value of its factor, and the changed
    picture differs from the base in that factor alone. Base pictures come first, then changed ones, one of each factor in rotation, up
    to `MAX_PICTURES`.
    """
    if not interventions:
        return "no factor was changed"
    factors = tuple(sorted(interventions))
    bases = {name: dict(zip(interventions[name].scene.tolist(), interventions[name].before.tolist(), strict=True)) for name in factors}
    common = sorted(set.intersection(*(set(base) for base in bases.values())))
    if not common:
        return "no scene has every factor changed, so some factor is unknown of every picture"
    pictures = {scene: bases[factors[0]][scene] for scene in common}
    for name in factors:
        for scene, picture in zip(interventions[name].scene.tolist(), interventions[name].before.tolist(), strict=True):
            if scene in pictures and picture != pictures[scene]:
                return f"scene {scene} has no one base picture: the change of {name} starts from another, whose other factors are unknown"
    return _tabulate(interventions, factors, pictures)


def _tabulate(interventions: Mapping[str, Interventions], factors: tuple[str, ...], pictures: Mapping[int, int]) -> KnownPictures:
    """Rows of the base pictures, then of the changed ones, one of each factor in rotation; each picture once."""
    base = {scene: np.zeros(len(factors), dtype=np.int64) for scene in pictures}
    for column, name in enumerate(factors):
        for scene, level in zip(interventions[name].scene.tolist(), interventions[name].level_before.tolist(), strict=True):
            if scene in base:
                base[scene][column] = level
    rows = {pictures[scene]: (scene, levels) for scene, levels in base.items()}
    for turn in zip_longest(*(_changed_rows(interventions[name], column, base) for column, name in enumerate(factors))):
        for row in turn:
            if row is not None:
                rows.setdefault(*row)
    first = list(rows)[:MAX_PICTURES]
    return KnownPictures(
        factors,
        tuple(len(interventions[name].values) for name in factors),
        np.array(first, dtype=np.int64),
        np.stack([rows[picture][1] for picture in first]),
        np.array([rows[picture][0] for picture in first], dtype=np.int64),
    )


def _changed_rows(
    change: Interventions, column: int, base: Mapping[int, Int[np.ndarray, " factor"]]
) -> Iterator[tuple[int, tuple[int, Int[np.ndarray, " factor"]]]]:
    """Each changed picture with its scene and levels: those of the base picture, except for the changed factor."""
    for scene, picture, level in zip(change.scene.tolist(), change.after.tolist(), change.level_after.tolist(), strict=True):
        if scene in base:
            levels = base[scene].copy()
            levels[column] = level
            yield picture, (scene, levels)


@dataclass(frozen=True, eq=False)
class Regression:
    """One regression of indicators on a representation: R2 of held-out rows, with penalty and kernel width chosen on training rows."""

    r2: Estimate
    penalty: float
    width: float


class Regressor:
    """Ridge regressions over one or more kernels; for each factor the kernel and penalty of the least cross-validated error."""

    def __init__(self, folds: Mapping[float, Folds], penalties: tuple[float, ...]) -> None:
        self.folds, self.penalties = folds, penalties

    def fit(
        self,
        train: Int[np.ndarray, " train"],
        test: Int[np.ndarray, " test"],
        num_levels: int,
        scenes: Int[np.ndarray, " test"],
        confidence: float,
    ) -> Regression:
        """R2 of a factor's indicators on held-out rows: 1 minus squared error over that of the training mean, all values together."""
        mean = one_hot(train, num_levels).mean(axis=0)
        targets, truth = one_hot(train, num_levels) - mean, one_hot(test, num_levels) - mean
        errors = {width: ((folds.left_out(targets) - targets) ** 2).sum(axis=(1, 2)) for width, folds in self.folds.items()}
        width = min(errors, key=lambda each: float(errors[each].min()))
        number = int(errors[width].argmin())
        error = ((self.folds[width].held_out(targets, number) - truth) ** 2).sum(axis=1)
        return Regression(r_squared(error, (truth**2).sum(axis=1), scenes, confidence), self.penalties[number], width)


def r_squared(
    error: Float[np.ndarray, " row"], total: Float[np.ndarray, " row"], scenes: Int[np.ndarray, " row"], confidence: float
) -> Estimate:
    """1 - sum(error) / sum(total), at most 1, with an interval clustered by scene: that of the unexplained part, on a log scale."""
    rest = clustered_ratio(error, total, scenes, confidence)
    low, high = (None if end is None else 1 - end for end in (rest.high, rest.low))
    return rounded(Estimate(value=1 - rest.value, low=low, high=high, num_scenes=rest.num_scenes))


def linear(train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"], folds: Int[np.ndarray, " train"]) -> Regressor:
    """Ridge regression from standardised dimensions: the limit of an infinitely wide Gaussian kernel."""
    return Regressor({math.inf: Folds(factorise(train, test), folds)}, PENALTIES)


def nonlinear(train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"], folds: Int[np.ndarray, " train"]) -> Regressor:
    """Kernel ridge regression from standardised dimensions, with Gaussian kernels of several widths; the widest are nearly linear."""
    inner, outer = standardised(train, test)
    inside, across = cdist(inner, inner, "sqeuclidean"), cdist(outer, inner, "sqeuclidean")
    unit = max(float(np.median(inside[np.triu_indices(len(inside), 1)])), 1e-12)
    by_width: dict[float, Folds] = {}
    for width in WIDTHS:
        gram, others = (np.exp(-each / (2 * unit * width**2)) for each in (inside, across))
        columns = gram.mean(axis=0)
        others = others - others.mean(axis=1, keepdims=True) - columns + columns.mean()
        gram = gram - columns[:, None] - columns + columns.mean()
        by_width[width] = Folds(factorise_gram(gram, others), folds, KERNEL_PENALTIES)
    return Regressor(by_width, KERNEL_PENALTIES)


def identify(
    vectors: Float[np.ndarray, "row dim"],
    table: KnownPictures,
    training: Bool[np.ndarray, " row"],
    folds: Int[np.ndarray, " train"],
    confidence: float,
) -> SiteIdentifiability | None:
    """All measures of one representation; `vectors` has the rows of the table. None where no dimension varies among training rows."""
    inner, outer = vectors[training], vectors[~training]
    train, test, scenes = table.levels[training], table.levels[~training], table.scene[~training]
    axes = choose_axes(inner, outer, train)
    if axes.num_dims == 0:
        return None
    levels = FactorLevels(train, test, table.scene[training], scenes)
    number = len(table.factors)
    # Informativeness is below 0 where trees are right less often than chance.
    least = np.repeat([0.0, -1.0, 0.0, -1.0], [2, 1, number, number])
    trees = jackknifed(lambda *given: dci_numbers(measure_dci(*given)), axes, levels, FOREST_GROUPS, confidence, least)
    matched = jackknifed(_matched, axes, levels, NUM_GROUPS, confidence, np.zeros(1 + number))
    regressors = (linear(inner, outer, folds), nonlinear(inner, outer, folds))
    blocks = {}
    for column, name in enumerate(table.factors):
        sides = train[:, column], test[:, column]
        straight, curved = (each.fit(*sides, table.num_levels[column], scenes, confidence) for each in regressors)
        blocks[name] = Blocks(
            linear_r2=straight.r2,
            nonlinear_r2=curved.r2,
            penalty=straight.penalty,
            nonlinear_penalty=curved.penalty,
            width=curved.width,
            **_by_name(completeness=trees[3 + column], informativeness=trees[3 + number + column], matched=matched[1 + column]),
        )
    return SiteIdentifiability(
        num_dims=axes.num_dims,
        num_axes=axes.train.shape[1],
        principal=False,
        kept_variance_frac=round(axes.train.shape[1] / axes.num_dims, DIGITS),
        linear_r2=_mean([block.linear_r2.value for block in blocks.values()]),
        nonlinear_r2=_mean([block.nonlinear_r2.value for block in blocks.values()]),
        factors=blocks,
        **_by_name(disentanglement=trees[0], completeness=trees[1], informativeness=trees[2], mcc=matched[0]),
    )


def _matched(axes: AxesRead, train: Int[np.ndarray, "train factor"], test: Int[np.ndarray, "test factor"]) -> Float[np.ndarray, " number"]:
    """MCC, then the correlation of each factor with its axis."""
    correlations = match_coordinates(axes, train, test)
    return np.concatenate([[correlations.mean()], correlations])


def _by_name(**estimates: Estimate | None) -> dict[str, Any]:
    """Fields of a record: the value of each estimate by its name, and all estimates as `intervals`."""
    values = {name: None if each is None else each.value for name, each in estimates.items()}
    return {**values, "intervals": {name: each for name, each in estimates.items() if each is not None}}


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), DIGITS)


def measure_identifiability(context: MeasureContext) -> Identifiability:
    """Identifiability from the mean vision token at every site; without sites, and with the reason, where it cannot be measured."""
    table = known_pictures(context.interventions)
    if isinstance(table, str):
        return _unmeasured(table)
    rng = context.rng("identifiability")
    training = split_scenes(table.scene, rng)
    reason = _unfit(table, training)
    if reason:
        return _unmeasured(reason)
    folds = assign_folds(table.scene[training], rng)
    sites: dict[str, SiteIdentifiability] = {}
    left_out: dict[str, str] = {}
    activations = context.activations
    for number, site in enumerate(activations.sites):
        context.progress(number, len(activations.sites))
        measured = identify(activations.mean(site)[table.picture], table, training, folds, context.confidence)
        if measured is None:
            left_out[site] = "it is the same for every training picture"
        else:
            sites[site] = measured
    context.progress(len(activations.sites), len(activations.sites))
    return Identifiability(
        reason=None if sites else "no site tells any two training pictures apart",
        num_pictures=len(table.picture),
        num_scenes=len(np.unique(table.scene)),
        max_axes=MAX_AXES,
        sites=sites,
        left_out=left_out,
    )


def _unmeasured(reason: str) -> Identifiability:
    return Identifiability(reason=reason, num_pictures=0, num_scenes=0, max_axes=MAX_AXES, sites={}, left_out={})


def _unfit(table: KnownPictures, training: Bool[np.ndarray, " row"]) -> str | None:
    """The reason why a split cannot be measured; None where it can."""
    if any(len(np.unique(table.scene[side])) < 2 for side in (training, ~training)):
        return "fewer than two scenes on a side of the split"
    for column, name in enumerate(table.factors):
        if len(np.unique(table.levels[training, column])) < 2:
            return f"{name} has one value among the training pictures"
    return None
