"""Linear probes at all token positions of a site at once, each as `probes.probe` with one penalty and without a control task.

A site has hundreds of positions, whose probes differ in their inputs alone: same rows, folds, levels and penalty. So each step is one
batched product or solve over a block of positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from theodolite.measurement.internals.probes import ZERO, Task, one_hot, varying

MOST_NUMBERS = 2**24  # in double precision, of one array of a block of positions


def probe_positions(tokens: Float[np.ndarray, "row token channel"], task: Task, penalty: float) -> Float[np.ndarray, "token test"]:
    """Whether the probe at each position is right on each held-out row, 0 or 1; `penalty` as in `probes.PENALTIES`."""
    training, truth = task.training, task.levels[~task.training]
    levels = task.levels[training]
    predicted = [
        _predictions(inner, outer, levels, task, penalty) for inner, outer in _blocks(tokens, training)
    ]
    return np.asarray(np.concatenate(predicted) == truth, dtype=float)


def _blocks(
    tokens: Float[np.ndarray, "row token channel"], training: Bool[np.ndarray, " row"]
) -> Iterator[tuple[Float[np.ndarray, "token train channel"], Float[np.ndarray, "token test channel"]]]:
    """Training and held-out rows of some positions, by position."""
    rows, number, channels = tokens.shape
    inside = int(training.sum())
    size = max(1, MOST_NUMBERS // (rows * channels + min(inside, channels) * (inside + channels)))
    for start in range(0, number, size):
        block = tokens[:, start : start + size].transpose(1, 0, 2)
        yield block[:, training].astype(np.float64), block[:, ~training].astype(np.float64)


def _predictions(
    inner: Float[np.ndarray, "token train channel"],
    outer: Float[np.ndarray, "token test channel"],
    levels: Int[np.ndarray, " train"],
    task: Task,
    penalty: float,
) -> Int[np.ndarray, "token test"]:
    mean, spread = inner.mean(axis=1, keepdims=True), inner.std(axis=1, keepdims=True)
    changes = varying(mean, spread)
    # A channel that is constant in training is 0 in both, which leaves it out.
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=changes)
    inner, outer = (inner - mean) * scale, (outer - mean) * scale
    num_channels = changes.sum(axis=(1, 2))
    strength = penalty * np.where(num_channels > 0, num_channels, 1.0)[:, None, None]
    targets = one_hot(levels, task.num_levels)
    targets = targets - targets.mean(axis=0)
    fitted = _fitted(inner, strength)  # (token, train, channel): training rows times it are the hat matrix
    left_out = _left_out(inner, fitted, targets, task.folds)
    held_out = outer @ (fitted.transpose(0, 2, 1) @ targets)
    weights, offsets = _discriminants(left_out, levels, task.num_levels)
    return np.asarray((held_out @ weights + offsets[:, None]).argmax(axis=2))


def _fitted(
    inner: Float[np.ndarray, "token train channel"], strength: Float[np.ndarray, "token 1 1"]
) -> Float[np.ndarray, "token train channel"]:
    """X (X'X + strength)^-1 = (XX' + strength)^-1 X, from the smaller side; its transpose times targets are the coefficients."""
    turned = inner.transpose(0, 2, 1)
    if inner.shape[2] <= inner.shape[1]:
        side = turned @ inner + strength * np.eye(inner.shape[2])
        return np.asarray(np.linalg.solve(side, turned).transpose(0, 2, 1))
    return np.asarray(np.linalg.solve(inner @ turned + strength * np.eye(inner.shape[1]), inner))


def _left_out(
    inner: Float[np.ndarray, "token train channel"],
    fitted: Float[np.ndarray, "token train channel"],
    targets: Float[np.ndarray, "train target"],
    folds: Int[np.ndarray, " train"],
) -> Float[np.ndarray, "token train target"]:
    """As `probes.Folds.left_out`: predictions of each row by the fit without its fold, from the hat matrix within the fold."""
    residual = targets - inner @ (fitted.transpose(0, 2, 1) @ targets)
    predictions = np.empty(residual.shape)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        hat = inner[:, rows] @ fitted[:, rows].transpose(0, 2, 1)
        predictions[:, rows] = targets[rows] - np.linalg.solve((1 + ZERO) * np.eye(len(rows)) - hat, residual[:, rows])
    return predictions


def _discriminants(
    predictions: Float[np.ndarray, "token row target"], levels: Int[np.ndarray, " row"], num_levels: int
) -> tuple[Float[np.ndarray, "token target level"], Float[np.ndarray, "token level"]]:
    """As `probes.discriminant`, for each position."""
    member = one_hot(levels, num_levels)
    counts = member.sum(axis=0)
    means = member.T @ predictions / np.maximum(counts, 1)[:, None]
    within = predictions - means[:, levels]
    covariance = within.transpose(0, 2, 1) @ within / len(levels)
    size = covariance.shape[1]
    trace = np.trace(covariance, axis1=1, axis2=2)[:, None, None]
    covariance = covariance + (1e-6 * trace / size + ZERO**2) * np.eye(size)
    weights = np.linalg.solve(covariance, means.transpose(0, 2, 1))
    with np.errstate(divide="ignore"):
        offsets = np.log(counts / len(levels)) - (means.transpose(0, 2, 1) * weights).sum(axis=1) / 2
    return weights, offsets
