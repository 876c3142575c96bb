"""What an objective is and returns: sums and counts, never means, so that any split of a batch adds up to the same loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Term:
    """A sum (a loss in nats unless said otherwise), the number of things it sums over, and its weight in the total.

    A term without a weight is only watched: it is logged, and no part of the loss.
    """

    total: Float[Tensor, ""]
    count: int
    weight: float | None = 1.0


Terms = Mapping[str, Term]


def combine(terms: Terms, global_counts: Mapping[str, int]) -> Float[Tensor, ""]:
    """Weighted sum of the terms, each divided by its global count, in nats; a count of 0 gives loss 0, still on the graph."""
    parts = [term.weight * term.total / max(global_counts[name], 1) for name, term in terms.items() if term.weight is not None]
    return torch.stack(parts).sum()


class Objective(nn.Module, ABC):
    """Sums and counts of a batch's losses, from the VLM, the batch and the step. What it trains beside the VLM, it holds as modules."""

    def prepare(self, batch: Mapping[str, Any], step: int, num_steps: int) -> Mapping[str, Any]:
        """The batch with what depends on the step, drawn from what the collator drew; called once, before anything is counted."""
        return batch

    @abstractmethod
    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        """How many things each term of a prepared batch will sum over: known before any pass, so that counts can be made global."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The terms of a prepared batch."""
