"""What an objective returns: sums and counts, never means, so that any split of a batch adds up to the same loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Term:
    """A summed loss in nats, the number of things it sums over, and its weight in the total."""

    total: Float[Tensor, ""]
    count: int
    weight: float = 1.0


Terms = Mapping[str, Term]


def combine(terms: Terms, global_counts: Mapping[str, int]) -> Float[Tensor, ""]:
    """Weighted sum of the terms, each divided by its global count, in nats; a count of 0 gives loss 0, still on the graph."""
    parts = [term.weight * term.total / max(global_counts[name], 1) for name, term in terms.items()]
    return torch.stack(parts).sum()
