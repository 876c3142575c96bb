"""Statistics of one case's answers by the vision tokens: Fisher information and the gradient of the loss, along displacements.

Nothing here is set to 0 because it is small: `is_rounding` only says where a ratio would be one of rounding errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NUM_DRAWS = 8


def negligible(eps: float) -> float:
    """The relative size, 0 to 1, below which a difference is rounding: 4e-6 in float32, 0.03 in bfloat16 (`eps` is the dtype's)."""
    return max(30 * torch.finfo(torch.float32).eps, 4 * eps)


def centred(
    gradients: Float[Tensor, "choice *tokens dim"], scores: Float[Tensor, " choice"]
) -> tuple[Float[Tensor, "choice *tokens dim"], Float[Tensor, " choice"]]:
    """Gradients of the choices' scores about their mean under m = softmax(scores), times sqrt(m), and m: F is the sum of their squares."""
    m = scores.softmax(dim=0)
    weight = m.view(-1, *[1] * (gradients.dim() - 1))
    return (gradients - (weight * gradients).sum(dim=0)) * weight.sqrt(), m


def is_rounding(
    rooted: Float[Tensor, "choice *tokens dim"], gradients: Float[Tensor, "choice *tokens dim"], m: Float[Tensor, " choice"], eps: float
) -> bool:
    """Whether what `centred` left of the gradients is rounding; `eps` is that of the dtype in which the model computed them."""
    total = float((m.view(-1, *[1] * (gradients.dim() - 1)) * gradients.square()).sum())
    return float(rooted.square().sum()) <= negligible(eps) ** 2 * total


def spectrum(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, " dim"] | None:
    """Eigenvalues of a symmetric matrix, negative ones set to 0, as shares of their sum, largest first; None where all are 0."""
    values = torch.linalg.eigvalsh(matrix.double()).clamp(min=0).flip(0)
    return values / values.sum() if float(values.sum()) > 0 else None


def entropy_rank(shares: Float[Tensor, " dim"]) -> float:
    """exp of the entropy of the shares: 1 to their number."""
    return float(torch.special.entr(shares).sum().exp())


def participation_rank(shares: Float[Tensor, " dim"]) -> float:
    """1 / sum of squared shares: 1 to their number."""
    return float(1 / shares.square().sum())


@dataclass(frozen=True, eq=False)
class AlongDisplacements:
    """One case's values along its picture's displacements, one a factor; NaN without a displacement, or where the reference is 0.

    `gradient` is signed, in nats of the loss for a step as long as the tokens (flattened); `gradient_random` is its expected size along a
    random direction. Values of the nuisance displacement are repeated for each factor that has one, and so is `gradient_random`.
    """

    energy: Float[np.ndarray, " factor"]
    energy_span: Float[np.ndarray, " factor"]
    energy_nuisance: Float[np.ndarray, " factor"]
    slope: Float[np.ndarray, " factor"]
    slope_span: Float[np.ndarray, " factor"]
    slope_nuisance: Float[np.ndarray, " factor"]
    gradient: Float[np.ndarray, " factor"]
    gradient_nuisance: Float[np.ndarray, " factor"]
    gradient_random: Float[np.ndarray, " factor"]


def along(
    rooted: Float[Tensor, "choice coordinate"] | None,
    loss: Float[Tensor, " coordinate"],
    moved: Float[Tensor, "displacement coordinate"],
    length: float,
    rng: np.random.Generator,
) -> AlongDisplacements:
    """Energies, slopes and gradients along unit displacements, and along random directions in the span of the others.

    `rooted` is from `centred`, None where it is rounding (no energies); `loss` the gradient of the loss; `moved` the displacements, a row
    a factor and last that of the nuisance, 0 where there is none; `length` that of the tokens. Energies are relative to their mean over
    random directions (trace / number of coordinates), slopes to the norm of the loss gradient.
    """
    lengths = moved.norm(dim=1)
    nonzero = (lengths > 0).cpu().numpy()
    unit = moved / torch.where(lengths > 0, lengths, 1.0)[:, None]
    # A sum of products in double precision, so that a component of 0 in all products is 0 and no other is.
    slopes = torch.stack([(each.double() * loss.double()).sum() for each in unit]).cpu().numpy()
    steepness = float(loss.double().norm())
    derivatives = None if rooted is None else (rooted @ unit.T).double().cpu()  # (choice, displacement)
    mean = 0.0 if rooted is None else float(rooted.double().square().sum()) / rooted.shape[1]
    energies = np.full(len(moved), np.nan) if derivatives is None else derivatives.square().sum(dim=0).numpy()

    def relative(values: np.ndarray, scale: float) -> np.ndarray:
        return np.where(nonzero, values / scale, np.nan) if scale > 0 else np.full(values.shape, np.nan)

    def of_nuisance(values: np.ndarray) -> np.ndarray:
        return np.where(nonzero[:-1], values[-1], np.nan)

    energy, slope, gradient = relative(energies, mean), relative(np.abs(slopes), steepness), relative(slopes * length, 1.0)
    spans = _spans(derivatives, slopes, unit[:-1], nonzero[:-1], (mean, steepness), rng)
    chance = steepness * length * (2 / (np.pi * moved.shape[1])) ** 0.5
    return AlongDisplacements(
        energy=energy[:-1],
        energy_span=spans[0],
        energy_nuisance=of_nuisance(energy),
        slope=slope[:-1],
        slope_span=spans[1],
        slope_nuisance=of_nuisance(slope),
        gradient=gradient[:-1],
        gradient_nuisance=of_nuisance(gradient),
        gradient_random=np.where(nonzero[:-1], chance, np.nan),
    )


def _spans(
    derivatives: Float[Tensor, "choice displacement"] | None,
    slopes: Float[np.ndarray, " displacement"],
    unit: Float[Tensor, "factor coordinate"],
    nonzero: np.ndarray,
    scales: tuple[float, float],
    rng: np.random.Generator,
) -> Float[np.ndarray, "2 factor"]:
    """Mean energy and slope along random directions in the span of the other factors' displacements, relative to their scales."""
    spans, (mean, steepness) = np.full((2, len(unit)), np.nan), scales
    gram, own = (unit @ unit.T).double().cpu().numpy(), slopes[: len(unit)]
    for number in np.flatnonzero(nonzero):
        others = np.flatnonzero(nonzero & (np.arange(len(unit)) != number))
        if not len(others):
            continue
        draws = rng.standard_normal((NUM_DRAWS, len(others)))
        squares = ((draws @ gram[np.ix_(others, others)]) * draws).sum(axis=1)  # squared lengths
        if derivatives is not None and mean > 0:
            energies = np.square(draws @ derivatives.numpy()[:, others].T).sum(axis=1) / squares
            spans[0, number] = energies.mean() / mean
        if steepness > 0:
            spans[1, number] = (np.abs(draws @ own[others]) / np.sqrt(squares)).mean() / steepness
    return spans
