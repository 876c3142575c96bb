"""DCI and MCC: whether single axes of a representation are single factors, with intervals over groups of scenes.

The axes are the representation's own channels. Principal components would describe the variance of the pictures instead: a rotation of
the channels changes no principal component, so numbers of them cannot see what DCI and MCC are about.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from sklearn import config_context
from sklearn.tree import DecisionTreeClassifier

from theodolite.measurement.internals.probes import one_hot, standardised
from theodolite.records.part import Estimate
from theodolite.stats.jackknife import jackknife_ends, rounded

MAX_AXES = 32
NUM_TREES = 40
FOREST_GROUPS = 5  # of scenes left out in turn, each with forests of its own
NUM_GROUPS = 10


@dataclass(frozen=True, eq=False)
class AxesRead:
    """Input of DCI and MCC: the standardised dimensions, or `MAX_AXES` of them where there are more."""

    train: Float[np.ndarray, "train axis"]
    test: Float[np.ndarray, "test axis"]
    num_dims: int


@dataclass(frozen=True, eq=False)
class FactorLevels:
    """Levels of all factors in the rows of a representation, training and held out, with their scenes."""

    train: Int[np.ndarray, "train factor"]
    test: Int[np.ndarray, "test factor"]
    train_scenes: Int[np.ndarray, " train"]
    test_scenes: Int[np.ndarray, " test"]


def choose_axes(
    train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"], levels: Int[np.ndarray, "train factor"]
) -> AxesRead:
    """The standardised dimensions that vary; of more than `MAX_AXES`, those most correlated with each factor in turn, on training rows."""
    inner, outer = standardised(train, test)
    num_dims = inner.shape[1]
    if num_dims <= MAX_AXES:
        return AxesRead(inner, outer, num_dims)
    best = np.stack([np.argsort(-correlation(inner, each), kind="stable") for each in levels.T])  # (factor, rank)
    chosen = np.sort(list(dict.fromkeys(best.T.ravel().tolist()))[:MAX_AXES])
    return AxesRead(inner[:, chosen], outer[:, chosen], num_dims)


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
    inner, outer = (np.ascontiguousarray(each, dtype=np.float32) for each in (axes.train, axes.test))  # as trees compute
    for factor in range(train.shape[1]):
        importance[:, factor], predicted = bagged_trees(inner, train[:, factor], outer)
        accuracy = float(np.mean(predicted == test[:, factor]))
        chance = float(np.bincount(test[:, factor]).max()) / len(test)
        informativeness.append((accuracy - chance) / (1 - chance) if chance < 1 else 0.0)
    return Dci(*dci(importance), tuple(informativeness))


def bagged_trees(
    train: Float[np.ndarray, "train axis"], levels: Int[np.ndarray, " train"], test: Float[np.ndarray, "test axis"]
) -> tuple[Float[np.ndarray, " axis"], Int[np.ndarray, " test"]]:
    """Importance of each axis (decrease of Gini impurity, sum 1; all 0 where no tree splits), and predicted levels of the held-out rows.

    `NUM_TREES` trees on bootstrap samples, which vote by probability: scikit-learn's random forest with all axes at each split, draw for
    draw. Its trees are grown here one by one, since it checks the input of each again and starts threads of its own.
    """
    present, target = np.unique(levels, return_inverse=True)
    number, draws = len(levels), np.random.RandomState(0)
    importance, votes = np.zeros(train.shape[1]), np.zeros((len(test), len(present)))
    with config_context(skip_parameter_validation=True, assume_finite=True):
        for _ in range(NUM_TREES):
            seed = draws.randint(np.iinfo(np.int32).max)
            rows = np.random.RandomState(seed).randint(0, number, number, dtype=np.int32)
            weight = np.bincount(rows, minlength=number).astype(np.float64)
            tree = DecisionTreeClassifier(min_samples_leaf=2, random_state=seed)
            tree.fit(train, target, sample_weight=weight, check_input=False)
            importance += tree.feature_importances_
            votes += tree.predict_proba(test, check_input=False)
    return importance / max(float(importance.sum()), np.finfo(float).tiny), present[votes.argmax(axis=1)]


def correlation(values: Float[np.ndarray, "row axis"], levels: Int[np.ndarray, " row"]) -> Float[np.ndarray, " axis"]:
    """Square root of Kelley's epsilon^2 of each axis by level, 0 to 1: the correlation ratio corrected for chance.

    epsilon^2 = 1 - (1 - eta^2) (n - 1) / (n - levels), cut at 0, with eta the correlation ratio. For two levels eta is |Pearson's r|, and
    this is the root of the adjusted r^2, below |r| (0.31 for 0.36 at 28 rows). It is 1 where the axis is a function of the level. Of
    values, not of ranks: ranks within a level would limit a separable factor of two levels to 0.87.
    """
    centred = values - values.mean(axis=0)
    _, member, counts = np.unique(levels, return_inverse=True, return_counts=True)
    if len(levels) <= len(counts):
        return np.zeros(values.shape[1])
    means = one_hot(member, len(counts)).T @ centred / counts[:, None]
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


def dci_numbers(measured: Dci) -> Float[np.ndarray, " number"]:
    """Disentanglement, mean completeness and mean informativeness, then completeness and informativeness by factor; NaN where None."""
    number = len(measured.informativeness)
    completeness = np.full(number, np.nan) if measured.completeness is None else np.array(measured.completeness)
    first = np.nan if measured.disentanglement is None else measured.disentanglement
    return np.array([first, completeness.mean(), np.mean(measured.informativeness), *completeness, *measured.informativeness])


def jackknifed(
    statistic: Callable[[AxesRead, Int[np.ndarray, "train factor"], Int[np.ndarray, "test factor"]], Float[np.ndarray, " number"]],
    axes: AxesRead,
    levels: FactorLevels,
    num_groups: int,
    confidence: float,
    least: Float[np.ndarray, " number"],
) -> list[Estimate | None]:
    """Each number of `statistic(axes, train levels, test levels)`, at most 1, with an interval cut at `least` and 1.

    Groups of scenes are left out of training and held-out rows in turn (delete-a-group jackknife). The axes are those of all scenes. None
    for a number that is NaN. Where a group leaves a factor one level or no rows, ends are None.
    """
    scenes = np.union1d(levels.train_scenes, levels.test_scenes)
    group = np.random.default_rng(len(scenes)).permutation(len(scenes)) % max(min(num_groups, len(scenes)), 1)
    own, other = group[np.searchsorted(scenes, levels.train_scenes)], group[np.searchsorted(scenes, levels.test_scenes)]
    parts = [(axes, levels.train, levels.test)]
    complete = []
    for number in range(int(group.max()) + 1):
        inside, outside = own != number, other != number
        train, test = levels.train[inside], levels.test[outside]
        complete.append(bool(len(test) and len(train)) and all(len(np.unique(each)) > 1 for each in train.T))
        if complete[-1]:
            parts.append((AxesRead(axes.train[inside], axes.test[outside], axes.num_dims), train, test))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # trees grow without the interpreter's lock; each part is computed as it is alone
        values, *by_group = pool.map(lambda part: statistic(*part), parts)
    table = np.full((len(complete), len(values)), np.nan)
    for row, group_values in zip(np.flatnonzero(complete), by_group, strict=True):
        table[row] = group_values
    num_scenes = len(np.unique(levels.test_scenes))
    estimates: list[Estimate | None] = []
    for value, column, lowest in zip(values, table.T, least, strict=True):
        low, high = jackknife_ends(float(value), column, (float(lowest), 1.0), confidence)
        estimates.append(None if np.isnan(value) else rounded(Estimate(value=float(value), low=low, high=high, num_scenes=num_scenes)))
    return estimates
