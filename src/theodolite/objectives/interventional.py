"""Pairs of pictures that differ in one factor: the distribution over answers may move only where the truth moves.

A batch holds partner pictures as rows of their own, with the same questions and no answers. Of each question only the first answer token is
compared, and of the partner only whether the truth moves is known, never its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.models.pass_inputs import plan_of
from theodolite.objectives.auxiliary import HeadLoss, VisionPass
from theodolite.objectives.language import MOST_LOGITS, summed_in_parts
from theodolite.objectives.terms import Term, Terms, at_least_single
from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class InterventionalConfig:
    """Weights of still questions (the truth stays) and moving ones, and the margin in nats up to which moving ones are pushed apart.

    `pair_frac` is the fraction (above 0, up to 1) of a stage's pictures that have a partner, which costs a further picture in a step.
    """

    still_weight: float = 1.0
    moving_weight: float = 1.0
    margin: float = 1.0
    pair_frac: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.pair_frac <= 1:
            raise BadInput(f"pair_frac is {self.pair_frac}; give a fraction above 0 and up to 1, or leave interventional out")
        if self.margin < 0:
            raise BadInput(f"margin of interventional is {self.margin}; give 0 or more nats")


def symmetric_kl(one: Float[Tensor, "pair vocabulary"], other: Float[Tensor, "pair vocabulary"]) -> Float[Tensor, " pair"]:
    """(KL(p||q) + KL(q||p)) / 2 of the distributions p and q of two sets of logits, in nats; 0 or more, in single precision at least."""
    log_p, log_q = (at_least_single(logits).log_softmax(dim=-1) for logits in (one, other))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1) / 2


def pair_sums(
    one: Float[Tensor, "pair vocabulary"], other: Float[Tensor, "pair vocabulary"], moves: Bool[Tensor, " pair"], margin: float
) -> Float[Tensor, "2"]:
    """The sum of symmetric KL over still pairs, and that of max(0, margin - symmetric KL) over moving ones, in nats.

    At equal distributions neither has a gradient: the second enlarges a difference that is there, and makes none.
    """
    distance = symmetric_kl(one, other)
    return torch.stack([distance.masked_fill(moves, 0.0).sum(), (margin - distance).relu().masked_fill(~moves, 0.0).sum()])


class Interventional(HeadLoss):
    """Symmetric KL between the answers to a question about a picture and about its partner: small where the truth stays, else large."""

    names = ("interventional_still", "interventional_moving")

    def __init__(self, settings: InterventionalConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or InterventionalConfig()

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        """Still and moving questions. Raises `BadInput` for a batch of a collator that makes no pairs."""
        plan = plan_of(batch)
        if plan.num_pairs is None:
            raise BadInput(
                "the batch has no pairs, which interventional compares; train on a world's examples with partners, or leave it out"
            )
        return dict(zip(self.names, plan.num_pairs, strict=True))

    def positions(self, batch: Mapping[str, Any]) -> Int[Tensor, " position"]:
        """Where the first answer token is predicted: for all pictures of the pairs, then for all partners."""
        positions: Tensor = batch["pair_positions"]
        return positions.flatten()

    def at_head(
        self, head: Callable[[Tensor], Tensor], states: Float[Tensor, "position dim"], batch: Mapping[str, Any], vocabulary: int
    ) -> Float[Tensor, "2"]:
        """`pair_sums`, with at most `MOST_LOGITS` logits at a time."""
        margin = self.settings.margin

        def part(one: Tensor, other: Tensor, moves: Tensor) -> Tensor:
            logits, partner_logits = head(torch.stack([one, other]))
            return pair_sums(logits, partner_logits, moves, margin)

        moves: Tensor = batch["pair_moves"]
        return summed_in_parts(part, (*states.view(2, len(moves), states.shape[-1]), moves), max(MOST_LOGITS // (2 * vocabulary), 1))

    def forward(self, seen: VisionPass) -> Terms:
        weights = (self.settings.still_weight, self.settings.moving_weight)
        counts = self.counts(seen.batch)
        return {
            name: Term(value, counts[name], weight)
            for name, value, weight in zip(self.names, seen.at_head[self].unbind(), weights, strict=True)
        }
