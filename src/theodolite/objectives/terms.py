"""The interface of objectives: terms are sums and counts, never means, so that any split of a batch adds up to the same loss."""

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
    """A sum (a loss in nats by default), the number of its summands, and its weight in the loss; with weight None it is only logged."""

    total: Float[Tensor, ""]
    count: int
    weight: float | None = 1.0


Terms = Mapping[str, Term]


def combine(terms: Terms, global_counts: Mapping[str, int]) -> Float[Tensor, ""]:
    """Weighted sum of the terms, each divided by its global count, in nats; a count of 0 gives loss 0, on the graph."""
    losses = [term.weight * term.total / max(global_counts[name], 1) for name, term in terms.items() if term.weight is not None]
    return torch.stack(losses).sum()


def at_least_single(values: Tensor) -> Tensor:
    """The values in single precision; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


class Objective(nn.Module, ABC):
    """A training objective: terms from the VLM, the batch and the step. Its submodules are trained beside the VLM."""

    def prepare(self, batch: Mapping[str, Any], step: int, num_steps: int) -> Mapping[str, Any]:
        """The batch with its step-dependent fields, computed from the collator's random draws; called once, before `counts`."""
        return batch

    @abstractmethod
    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        """The number of summands of each term of a prepared batch, before any forward pass, so that counts can be summed globally."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The terms of a prepared batch."""
