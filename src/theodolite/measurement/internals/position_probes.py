"""Linear probes at all token positions of a site at once, each as `probes.probe` with one penalty and without a control task.

A site has hundreds of positions, whose probes differ in their inputs alone: same rows, folds, levels and penalty. So each step is one
batched product or solve over a block of positions, on the model's device.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.measurement.internals.probes import ZERO, Task
from theodolite.measurement.internals.token_similarity import double_device

MOST_NUMBERS = 2**24  # in double precision, of one array of a block of positions


def probe_positions(
    tokens: Float[np.ndarray, "row token channel"], task: Task, penalty: float, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "token test"]:
    """Whether the probe at each position is right on each held-out row, 0 or 1; `penalty` as in `probes.PENALTIES`."""
    on, training = double_device(device), task.training
    levels, folds = (torch.from_numpy(each).to(on) for each in (task.levels[training], task.folds))
    predicted = [
        _predictions(block[:, training].to(on).double(), block[:, ~training].to(on).double(), levels, folds, task.num_levels, penalty)
        for block in _blocks(tokens, int(training.sum()))
    ]
    return np.asarray(torch.cat(predicted).cpu().numpy() == task.levels[~training], dtype=float)


def _blocks(tokens: Float[np.ndarray, "row token channel"], num_training: int) -> Iterator[Float[Tensor, "token row channel"]]:
    rows, number, channels = tokens.shape
    size = max(1, MOST_NUMBERS // (rows * channels + min(num_training, channels) * (num_training + channels)))
    for start in range(0, number, size):
        yield torch.from_numpy(np.ascontiguousarray(tokens[:, start : start + size].transpose(1, 0, 2)))


def _predictions(
    inner: Float[Tensor, "token train channel"],
    outer: Float[Tensor, "token test channel"],
    levels: Int[Tensor, " train"],
    folds: Int[Tensor, " train"],
    num_levels: int,
    penalty: float,
) -> Int[Tensor, "token test"]:
    mean, spread = inner.mean(dim=1, keepdim=True), inner.std(dim=1, keepdim=True, correction=0)
    varying = spread > ZERO * mean.abs().clamp(min=1.0)
    # A channel that is constant in training is 0 in both, which leaves it out.
    scale = torch.where(varying, 1 / spread, 0.0)
    inner, outer = (inner - mean) * scale, (outer - mean) * scale
    strength = penalty * varying.sum(dim=(1, 2)).clamp(min=1).double()[:, None, None]
    member = torch.nn.functional.one_hot(levels, num_levels).double()
    targets = member - member.mean(dim=0)
    fitted = _fitted(inner, strength)
    slopes = fitted.mT @ targets
    predictions = _left_out(inner, fitted, targets - inner @ slopes, targets, folds)
    weights, offsets = _discriminants(predictions, levels, member)
    return ((outer @ slopes) @ weights + offsets[:, None]).argmax(dim=2)


def _fitted(inner: Float[Tensor, "token train channel"], strength: Float[Tensor, "token 1 1"]) -> Float[Tensor, "token train channel"]:
    """X (X'X + strength)^-1 = (XX' + strength)^-1 X, from the smaller side. X times its transpose is the hat matrix."""
    _, rows, channels = inner.shape
    eye = torch.eye(min(rows, channels), dtype=inner.dtype, device=inner.device)
    if channels <= rows:
        solved: Tensor = torch.linalg.solve(inner.mT @ inner + strength * eye, inner.mT).mT
    else:
        solved = torch.linalg.solve(inner @ inner.mT + strength * eye, inner)
    return solved


def _left_out(
    inner: Float[Tensor, "token train channel"],
    fitted: Float[Tensor, "token train channel"],
    residual: Float[Tensor, "token train target"],
    targets: Float[Tensor, "train target"],
    folds: Int[Tensor, " train"],
) -> Float[Tensor, "token train target"]:
    """As `probes.Folds.left_out`: predictions of each row by the fit without its fold, from the hat matrix within the fold."""
    predictions = torch.empty_like(residual)
    for fold in torch.unique(folds):
        rows = (folds == fold).nonzero()[:, 0]
        hat = inner[:, rows] @ fitted[:, rows].mT
        eye = torch.eye(len(rows), dtype=inner.dtype, device=inner.device)
        predictions[:, rows] = targets[rows] - torch.linalg.solve((1 + ZERO) * eye - hat, residual[:, rows])
    return predictions


def _discriminants(
    predictions: Float[Tensor, "token row target"], levels: Int[Tensor, " row"], member: Float[Tensor, "row level"]
) -> tuple[Float[Tensor, "token target level"], Float[Tensor, "token level"]]:
    """As `probes.discriminant`, for each position."""
    counts = member.sum(dim=0)
    means = (member.T @ predictions) / counts.clamp(min=1)[:, None]
    within = predictions - means[:, levels]
    covariance = within.mT @ within / len(levels)
    size = covariance.shape[1]
    trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    eye = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    weights = torch.linalg.solve(covariance + (1e-6 * trace / size + ZERO**2) * eye, means.mT)
    return weights, (counts / len(levels)).log() - (means.mT * weights).sum(dim=1) / 2
