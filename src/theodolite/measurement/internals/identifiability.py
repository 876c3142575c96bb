"""Identifiability of factors from a representation up to simple maps: DCI, MCC with optimal matching, block-wise linear and nonlinear R2.

All of it is held out by scene. DCI: Eastwood and Williams, ICLR 2018. MCC: after Hyvarinen and Morioka, NeurIPS 2016. Block-wise R2:
after von Kügelgen et al., NeurIPS 2021. High linear R2 with low DCI and MCC means rotated axes, which is no loss to a linear readout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.ensemble import RandomForestClassifier

from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.probes import PENALTIES, Folds, assign_folds, factorise, factorise_gram, one_hot, standardised
from theodolite.measurement.pairs.interventions import Interventions, split_scenes
from theodolite.records.identifiability import Blocks, Identifiability, SiteIdentifiability
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import DIGITS, clustered_ratio, rounded

MAX_AXES = 32
MAX_PICTURES = 1000
NUM_TREES = 40
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
class AxesRead:
    """Input of DCI and MCC: the standardised dimensions, or principal components of the training rows for more than `MAX_AXES` of them."""

    train: Float[np.ndarray, "train axis"]
    test: Float[np.ndarray, "test axis"]
    num_dims: int
    kept_variance_frac: float


def choose_axes(train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"]) -> AxesRead:
    """The axes of a representation: its standardised dimensions or their first `MAX_AXES` principal components."""
    inner, outer = standardised(train, test)
    num_dims = inner.shape[1]
    if num_dims <= MAX_AXES:
        return AxesRead(inner, outer, num_dims, 1.0)
    _, lengths, directions = np.linalg.svd(inner, full_matrices=False)
    components = directions[:MAX_AXES]
    # The sign of a component is arbitrary; its largest entry is made positive so that records are reproducible.
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])
    axes = (components * signs[:, None]).T
    return AxesRead(inner @ axes, outer @ axes, num_dims, float((lengths[:MAX_AXES] ** 2).sum() / (lengths**2).sum()))


@dataclass(frozen=True, eq=False)
class Dci:
    """Disentanglement (None for fewer than two factors), and by factor completeness (None for fewer than two axes) and informativeness."""

    disentanglement: float | None
    completeness: tuple[float, ...] | None
    informativeness: tuple[float, ...]


def dci(importance: Float[np.ndarray, "axis factor"]) -> tuple[float | None, tuple[float, ...] | None]:
    """Disentanglement and completeness, 0 to 1, of a matrix of importances. Eastwood and Williams 2018, section 2.

    1 minus the entropy of a row (an axis's importances for factors) or a column (a factor's importances of axes) over its maximum.
    """
    num_axes, num_factors = importance.shape
    rows, columns = importance.sum(axis=1), importance.sum(axis=0)
    disentanglement = None
    if num_factors > 1 and rows.sum() > 0:
        disentanglement = float(_purity(importance, axis=1) @ rows / rows.sum())
    completeness = None
    if num_axes > 1:
        completeness = tuple(float(each) for each in np.where(columns > 0, _purity(importance, axis=0), 0.0))
    return disentanglement, completeness


def _purity(importance: Float[np.ndarray, "axis factor"], axis: int) -> Float[np.ndarray, " line"]:
    total = importance.sum(axis=axis, keepdims=True)
    share = np.divide(importance, total, out=np.zeros_like(importance), where=total > 0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=axis)
    return np.asarray(1 - entropy / np.log(importance.shape[axis]))


def measure_dci(axes: AxesRead, train: Int[np.ndarray, "train factor"], test: Int[np.ndarray, "test factor"]) -> Dci:
    """DCI of axes by bagged trees, one forest a factor; splits choose among all axes, so importance goes to the best, not to a proxy."""
    importance = np.zeros((axes.train.shape[1], train.shape[1]))
    informativeness = []
    for factor in range(train.shape[1]):
        forest = RandomForestClassifier(NUM_TREES, max_features=None, min_samples_leaf=2, random_state=0, n_jobs=1)
        forest.fit(axes.train, train[:, factor])
        importance[:, factor] = forest.feature_importances_
        accuracy = float(np.mean(forest.predict(axes.test) == test[:, factor]))
        chance = float(np.bincount(test[:, factor]).max()) / len(test)
        informativeness.append((accuracy - chance) / (1 - chance) if chance < 1 else 0.0)
    return Dci(*dci(importance), tuple(informativeness))


def correlation(values: Float[np.ndarray, "row axis"], levels: Int[np.ndarray, " row"]) -> Float[np.ndarray, " axis"]:
    """Correlation ratio of each axis by level, 0 to 1, corrected for chance; for two levels it is |Pearson's r| so corrected.

    The square is Kelley's epsilon^2 = 1 - (1 - eta^2) (n - 1) / (n - levels), cut at 0. It is 1 where the axis is a function of the level.
    Of values, not of ranks: ranks within a level would limit a separable factor of two levels to 0.87.
    """
    centred = values - values.mean(axis=0)
    _, member, counts = np.unique(levels, return_inverse=True, return_counts=True)
    if len(levels) <= len(counts):
        return np.zeros(values.shape[1])
    means = np.stack([np.bincount(member, column) for column in centred.T], axis=1) / counts[:, None]
    total = (centred**2).sum(axis=0)
    between = (counts[:, None] * means**2).sum(axis=0)
    unexplained = np.divide(total - between, total, out=np.ones(len(total)), where=total > 0)
    return np.asarray(np.sqrt(np.clip(1 - unexplained * (len(levels) - 1) / (len(levels) - len(counts)), 0, 1)))


def match_coordinates(
    axes: AxesRead, train: Int[np.ndarray, "train factor"], test: Int[np.ndarray, "test factor"]
) -> Float[np.ndarray, " factor"]:
    """Correlation of each factor with its matched axis, 0 to 1: matched on training rows for the largest sum, evaluated on the others.

    With fewer axes than factors, factors without an axis have 0.
    """
    correlations = np.stack([correlation(axes.train, levels) for levels in train.T], axis=1)
    rows, columns = linear_sum_assignment(-correlations)
    matched = np.zeros(train.shape[1])
    for axis, factor in zip(rows, columns, strict=True):
        matched[factor] = correlation(axes.test[:, [axis]], test[:, factor])[0]
    return matched


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
    axes = choose_axes(inner, outer)
    if axes.num_dims == 0:
        return None
    trees, matched = measure_dci(axes, train, test), match_coordinates(axes, train, test)
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
            completeness=None if trees.completeness is None else round(trees.completeness[column], DIGITS),
            informativeness=round(trees.informativeness[column], DIGITS),
            matched=round(float(matched[column]), DIGITS),
        )
    return _summary(axes, trees, blocks)


def _summary(axes: AxesRead, trees: Dci, blocks: dict[str, Blocks]) -> SiteIdentifiability:
    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), DIGITS)

    each = list(blocks.values())
    return SiteIdentifiability(
        num_dims=axes.num_dims,
        num_axes=axes.train.shape[1],
        principal=axes.num_dims > MAX_AXES,
        kept_variance_frac=round(axes.kept_variance_frac, DIGITS),
        disentanglement=None if trees.disentanglement is None else round(trees.disentanglement, DIGITS),
        completeness=None if trees.completeness is None else mean(list(trees.completeness)),
        informativeness=mean([block.informativeness for block in each]),
        mcc=mean([block.matched for block in each]),
        linear_r2=mean([block.linear_r2.value for block in each]),
        nonlinear_r2=mean([block.nonlinear_r2.value for block in each]),
        factors=blocks,
    )


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
