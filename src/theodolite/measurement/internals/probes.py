"""Linear probes of a categorical factor: held out by scene, with a control task. Needs numpy only.

A probe is ridge regression of the levels' indicators, then a linear discriminant in the space of its predictions (penalised discriminant
analysis: Hastie, Buja and Tibshirani, Annals of Statistics 23 (1995)), so that levels in a row along one direction are separated too.
Together they are one affine map and an argmax. One eigendecomposition of the inputs serves all penalties, folds, labels and controls,
since ridge predictions of left-out scenes have a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.measurement.internals.control_task import ControlTask

# Relative to the mean squared length of a standardised input: from almost no shrinkage to almost full shrinkage.
PENALTIES = tuple(float(10.0**power) for power in range(-2, 4))
NUM_FOLDS = 10
ZERO = 1e-10


@dataclass(frozen=True, eq=False)
class Factorisation:
    """The eigendecomposition of the Gram matrix of training inputs, and the held-out inputs in its basis.

    Gram = vectors diag(gains) vectors^T; a ridge fit of centred targets y predicts others diag(1 / (gains + penalty)) vectors^T y
    for the held-out rows. `scale` is the mean squared length of a training input, the unit of penalties.
    """

    vectors: Float[np.ndarray, "train direction"]
    gains: Float[np.ndarray, " direction"]
    others: Float[np.ndarray, "test direction"]
    scale: float


def standardised(
    train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"]
) -> tuple[Float[np.ndarray, "train kept"], Float[np.ndarray, "test kept"]]:
    """Both, scaled to mean 0 and variance 1 of the training rows by dimension; dimensions constant in training are left out."""
    inner, outer = train.astype(np.float64), test.astype(np.float64)
    mean, spread = inner.mean(axis=0), inner.std(axis=0)
    varying = spread > ZERO * np.maximum(1.0, np.abs(mean))
    return (inner[:, varying] - mean[varying]) / spread[varying], (outer[:, varying] - mean[varying]) / spread[varying]


def factorise(train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"]) -> Factorisation:
    """The factorisation of standardised inputs, from the smaller of the two Gram matrices."""
    inner, outer = standardised(train, test)
    if inner.shape[1] == 0:
        return Factorisation(np.zeros((len(train), 0)), np.zeros(0), np.zeros((len(test), 0)), 1.0)
    scale = float(inner.shape[1])
    if inner.shape[1] >= len(inner):
        return factorise_gram(inner @ inner.T, outer @ inner.T)
    gains, axes = np.linalg.eigh(inner.T @ inner)
    nonzero = gains > ZERO * gains[-1]
    gains, axes = gains[nonzero], axes[:, nonzero]
    return Factorisation(inner @ axes / np.sqrt(gains), gains, outer @ axes * np.sqrt(gains), scale)


def factorise_gram(gram: Float[np.ndarray, "train train"], others: Float[np.ndarray, "test train"]) -> Factorisation:
    """The factorisation of a centred Gram or kernel matrix; `others` has the products of held-out rows with training rows."""
    gains, vectors = np.linalg.eigh(gram)
    nonzero = gains > ZERO * max(float(gains[-1]), ZERO)
    gains, vectors = gains[nonzero], vectors[:, nonzero]
    return Factorisation(vectors, gains, others @ vectors, max(float(np.trace(gram)) / len(gram), ZERO))


class Folds:
    """Ridge predictions of each fold (whole scenes) by the fit without it, in closed form.

    The left-out residual of a fold is (I - H_fold)^-1 times its residual, H the hat matrix. The mean of the targets is fixed: a mean
    without the fold would reveal the fold's labels by lacking them. Slopes would do the same with folds of one scene each.
    """

    def __init__(self, factorisation: Factorisation, folds: Int[np.ndarray, " train"], penalties: Sequence[float] = PENALTIES) -> None:
        self.factorisation = factorisation
        self.penalties = tuple(factorisation.scale * penalty for penalty in penalties)
        self.rows = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        gains = factorisation.gains
        self._shrinkages = [gains / (gains + penalty) for penalty in self.penalties]
        self._inverses = [[self._inverse(rows, shrinkage) for rows in self.rows] for shrinkage in self._shrinkages]

    def _inverse(self, rows: Int[np.ndarray, " row"], shrinkage: Float[np.ndarray, " direction"]) -> Float[np.ndarray, "row row"]:
        """Inverse of (1 + 1e-10) I - H within a fold, which exists even where the penalty is so small that the fit interpolates."""
        vectors = self.factorisation.vectors[rows]
        return np.linalg.inv((1 + ZERO) * np.eye(len(rows)) - (vectors * shrinkage) @ vectors.T)

    def left_out(self, targets: Float[np.ndarray, "train target"]) -> Float[np.ndarray, "penalty train target"]:
        """Predictions of centred targets, each row by the fit without its fold, for every penalty."""
        vectors = self.factorisation.vectors
        along = vectors.T @ targets
        predictions = np.empty((len(self.penalties), *targets.shape))
        for number, (shrinkage, inverses) in enumerate(zip(self._shrinkages, self._inverses, strict=True)):
            residual = targets - vectors @ (shrinkage[:, None] * along)
            for rows, inverse in zip(self.rows, inverses, strict=True):
                predictions[number, rows] = targets[rows] - inverse @ residual[rows]
        return predictions

    def held_out(self, targets: Float[np.ndarray, "train target"], number: int) -> Float[np.ndarray, "test target"]:
        """Predictions of the held-out rows by the fit to all training rows; `number` is the index of the penalty."""
        along = self.factorisation.vectors.T @ targets
        weight = 1 / (self.factorisation.gains + self.penalties[number])
        return np.asarray(self.factorisation.others @ (weight[:, None] * along))


def assign_folds(scenes: Int[np.ndarray, " row"], rng: np.random.Generator, num_folds: int = NUM_FOLDS) -> Int[np.ndarray, " row"]:
    """The fold of each row: whole scenes in random order, assigned to folds of equal numbers of scenes (up to one)."""
    clusters, member = np.unique(scenes, return_inverse=True)
    fold = np.empty(len(clusters), dtype=np.int64)
    fold[rng.permutation(len(clusters))] = np.arange(len(clusters)) % num_folds
    return fold[member]


@dataclass(frozen=True, eq=False)
class Probe:
    """Correct predictions of held-out rows, 0 or 1; `folds_frac`: cross-validated accuracy.

    `control`: the same of the control task, mean over its draws; NaN in rows whose combination training lacks, None without a control task.
    """

    right: Float[np.ndarray, " test"]
    control: Float[np.ndarray, " test"] | None
    folds_frac: float
    penalty: float

    @property
    def accuracy_frac(self) -> float:
        """Share of held-out rows that are predicted correctly, 0 to 1."""
        return float(self.right.mean())


@dataclass(frozen=True, eq=False)
class Task:
    """One factor's samples with their split: levels, scenes, training rows and the folds of those. The same task serves every site.

    `control` has the labels of the control task; None where the other factors' values are unknown.
    """

    levels: Int[np.ndarray, " row"]
    scenes: Int[np.ndarray, " row"]
    training: Bool[np.ndarray, " row"]
    folds: Int[np.ndarray, " train"]
    num_levels: int
    control: ControlTask | None = None

    def take(self, keep: Bool[np.ndarray, " row"]) -> Task:
        """The same split of the rows of a mask."""
        control = None if self.control is None else self.control.take(keep)
        folds = self.folds[keep[self.training]]
        return Task(self.levels[keep], self.scenes[keep], self.training[keep], folds, self.num_levels, control)

    def without_control(self) -> Task:
        """The same task without a control task."""
        return replace(self, control=None)

    @property
    def chance_frac(self) -> float:
        """Share of the commonest level among the held-out rows, 0 to 1: the best accuracy of a constant answer."""
        levels = self.levels[~self.training]
        return float(np.bincount(levels, minlength=self.num_levels).max()) / len(levels)

    @property
    def can_be_probed(self) -> bool:
        """Whether either side of the split has two scenes and two levels or more."""
        return all(len(np.unique(rows[side])) > 1 for rows in (self.scenes, self.levels) for side in (self.training, ~self.training))


def probe(vectors: Float[np.ndarray, "row dim"], task: Task, penalties: Sequence[float] = PENALTIES) -> Probe:
    """A linear probe of the task's levels from vectors, trained on its training rows and evaluated on the others.

    The penalty is the one of `penalties` (in units of the mean squared length of an input) with the highest cross-validated accuracy (the
    larger of equals); the control task selects its own. Selectivity is accuracy minus accuracy at the control task (Hewitt and Liang 2019,
    arXiv 1909.03368): small where the probe, on these inputs, can memorise. Inputs are standardised by all training rows.
    """
    training, truth = task.training, task.levels[~task.training]
    folds = Folds(factorise(vectors[training], vectors[~training]), task.folds, penalties)
    predicted, folds_frac, number = _fit(folds, task.levels[training], task.num_levels)
    control = None
    if task.control is not None:
        right = [_fit(folds, each[training], task.num_levels)[0] == each[~training] for each in task.control.labels]
        control = np.where(task.control.repeated(training), np.mean(right, axis=0), np.nan)
    return Probe((predicted == truth).astype(float), control, folds_frac, penalties[number])


def best_of(folds: Sequence[Folds], task: Task) -> Float[np.ndarray, " test"]:
    """Correct predictions of held-out rows, 0 or 1, of the fit with the highest cross-validated accuracy, the first of equals."""
    levels, truth = task.levels[task.training], task.levels[~task.training]
    predicted, _, _ = max((_fit(each, levels, task.num_levels) for each in folds), key=lambda fitted: fitted[1])
    return np.asarray(predicted == truth, dtype=float)


def _fit(folds: Folds, levels: Int[np.ndarray, " train"], num_levels: int) -> tuple[Int[np.ndarray, " test"], float, int]:
    """The predicted levels of the held-out rows, the cross-validated accuracy, and the index of the selected penalty."""
    targets = one_hot(levels, num_levels)
    targets = targets - targets.mean(axis=0)
    left_out = folds.left_out(targets)
    rules = [discriminant(each, levels, num_levels) for each in left_out]
    fracs = [float(np.mean(apply(rule, each) == levels)) for rule, each in zip(rules, left_out, strict=True)]
    number = max(range(len(fracs)), key=lambda index: (fracs[index], index))
    return apply(rules[number], folds.held_out(targets, number)), fracs[number], number


def one_hot(levels: Int[np.ndarray, " row"], num_levels: int) -> Float[np.ndarray, "row level"]:
    """1 in the column of the row's level, else 0."""
    return np.asarray(levels[:, None] == np.arange(num_levels), dtype=float)


Rule = tuple[Float[np.ndarray, "target level"], Float[np.ndarray, " level"]]


def discriminant(predictions: Float[np.ndarray, "row target"], levels: Int[np.ndarray, " row"], num_levels: int) -> Rule:
    """Weights and offsets of the linear discriminant (shared covariance, priors by share); a level without rows is never predicted."""
    member = one_hot(levels, num_levels)
    counts = member.sum(axis=0)
    means = member.T @ predictions / np.maximum(counts, 1)[:, None]
    within = predictions - means[levels]
    covariance = within.T @ within / len(predictions)
    # Predictions of indicators sum to a constant, so one direction has no variance (and no information).
    covariance += (1e-6 * np.trace(covariance) / len(covariance) + ZERO**2) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means.T)
    with np.errstate(divide="ignore"):
        offsets = np.log(counts / len(predictions)) - (means.T * weights).sum(axis=0) / 2
    return weights, offsets


def apply(rule: Rule, predictions: Float[np.ndarray, "row target"]) -> Int[np.ndarray, " row"]:
    """The level of the largest score in each row."""
    weights, offsets = rule
    return np.asarray(np.argmax(predictions @ weights + offsets, axis=1))
