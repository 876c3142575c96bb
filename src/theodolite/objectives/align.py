"""A middle layer's vision tokens keep to the encoder's features: alignment by cosine, as in VIRAL (arXiv 2509.07979)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from theodolite.models.pass_inputs import plan_of
from theodolite.objectives.auxiliary import AuxiliaryLoss, VisionPass
from theodolite.objectives.masked_latent import VisionHead
from theodolite.objectives.terms import Term, Terms, at_least_single
from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class AlignConfig:
    """Weight (VIRAL's is 0.5), the block whose output is aligned (from 1; None is the middle one, VIRAL's choice), and the head's size."""

    weight: float = 0.5
    layer: int | None = None
    head_hidden: int = 1024


def cosine_distance(one: Float[Tensor, "token channel"], other: Float[Tensor, "token channel"]) -> Float[Tensor, ""]:
    """Sum over tokens of 1 - cosine, each 0 to 2; a vector of zeros is at 1 from all. No gradient reaches `other`."""
    return (1 - F.cosine_similarity(at_least_single(one), at_least_single(other.detach()), dim=-1)).sum()


class Align(AuxiliaryLoss):
    """1 - cosine between a projection of a middle layer's vision tokens and the frozen encoder's features that they were made of."""

    reads_features = True

    def __init__(self, width: int, num_layers: int, channels: int, settings: AlignConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or AlignConfig()
        number = max(num_layers // 2, 1) if self.settings.layer is None else self.settings.layer
        if not 1 <= number <= num_layers:
            raise BadInput(f"layer of align is {number}; the language model has layers 1 to {num_layers}")
        self.site = f"layer.{number}"
        self.layers = (self.site,)
        self.head = VisionHead(width, self.settings.head_hidden, channels)

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"align": sum(plan_of(batch).layout.sizes())}

    def forward(self, seen: VisionPass) -> Terms:
        projected = self.head(seen.layer(self.site))
        return {"align": Term(cosine_distance(projected, seen.target_features), len(projected), self.settings.weight)}
