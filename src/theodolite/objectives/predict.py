"""Masked vision tokens regress the frozen encoder's features: a fixed target in place of LaVer's teacher.

The loss is that of data2vec (arXiv 2202.03555): squared error against features that are normalised by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from theodolite.objectives.auxiliary import AuxiliaryLoss, VisionPass
from theodolite.objectives.masked_latent import VisionHead
from theodolite.objectives.terms import Term, Terms, at_least_single


@dataclass(frozen=True)
class PredictConfig:
    """Weight, and the head's size."""

    weight: float = 1.0
    head_hidden: int = 1024


def regression_loss(output: Float[Tensor, "token channel"], features: Float[Tensor, "token channel"]) -> Float[Tensor, ""]:
    """Sum over tokens of the mean squared error against the features, normalised to mean 0 and variance 1 by token; 0 or more.

    No gradient reaches the features. No token gives 0, on the graph.
    """
    wide = at_least_single(features.detach())
    return (at_least_single(output) - F.layer_norm(wide, wide.shape[-1:])).square().mean(dim=-1).sum()


class Predict(AuxiliaryLoss):
    """Squared error between a head's output on masked vision tokens of the last layer and the frozen encoder's features there."""

    reads_features = True
    masks = True

    def __init__(self, width: int, channels: int, settings: PredictConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or PredictConfig()
        self.head = VisionHead(width, self.settings.head_hidden, channels)

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"predict": len(batch["masked_index"])}

    def forward(self, seen: VisionPass) -> Terms:
        # All tokens go through the head, so that a step without a masked one gives its parameters a gradient of 0.
        output = self.head(seen.last)[seen.masked]
        return {"predict": Term(regression_loss(output, seen.target_features[seen.masked]), len(output), self.settings.weight)}
