"""Next-token prediction on answers, the standard objective of vision-language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from theodolite.models.conversation_tokenizer import IGNORE
from theodolite.models.families import family_of
from theodolite.models.forward import STOCK, Adaptation, ForwardOutput, base_model, run_forward
from theodolite.models.pass_inputs import PassInputs, whole_inputs
from theodolite.objectives.terms import Objective, Term, Terms

# Logits that exist at a time: 268 MB in single precision, and as much for their gradient.
MOST_LOGITS = 2**26


def next_token_loss(logits: Float[Tensor, "position vocabulary"], labels: Int[Tensor, " position"]) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats of each position's logits against the token that follows it; labels of `IGNORE` are left out."""
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")


def chunked_loss(
    head: nn.Module, states: Float[Tensor, "position dim"], labels: Int[Tensor, " position"], most_logits: int = MOST_LOGITS
) -> Float[Tensor, ""]:
    """`next_token_loss` of the head's logits at these hidden states, with at most `most_logits` logits at a time.

    Where there are more, each part of the positions is computed again in the backward pass.
    """
    rows = max(most_logits // len(head.weight), 1)  # type: ignore[arg-type]
    if len(labels) <= rows:
        return next_token_loss(head(states), labels)

    def part(states: Tensor, labels: Tensor) -> Tensor:
        return next_token_loss(head(states), labels)

    losses = [
        checkpoint(part, *pair, use_reentrant=False) for pair in zip(torch.split(states, rows), torch.split(labels, rows), strict=True)
    ]
    return torch.stack(losses).sum()


def answer_loss(
    model: nn.Module, inputs: PassInputs, labels: Int[Tensor, " position"], adaptation: Adaptation = STOCK, *options: Any
) -> tuple[Float[Tensor, ""], ForwardOutput]:
    """Summed cross-entropy in nats of the tokens that follow the wanted positions, and the pass itself, without logits.

    `options` are the further arguments of `run_forward`.
    """
    output = run_forward(model, replace(inputs, wanted=None), adaptation, *options)
    base = base_model(model)
    states = output.hidden.flatten(0, 1)[inputs.wanted]
    return chunked_loss(base.get_submodule(family_of(base.config).lm_head), states, labels), output


class Language(Objective):
    """The language term: cross-entropy of the answer tokens (end token included) given picture and question.

    With an adaptation (mixed attention, 2D positions) it is the control in comparisons with visual supervision.
    """

    def __init__(self, adaptation: Adaptation = STOCK) -> None:
        super().__init__()
        self.adaptation = adaptation

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"language": int(batch["labels"].numel())}

    def forward(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The summed loss over the batch's answer tokens.

        `batch["predicts"]` holds the flat indices of the positions that predict them, `batch["labels"]` the tokens that follow.
        """
        loss, _ = answer_loss(model, whole_inputs(base_model(model).config, batch), batch["labels"], self.adaptation)
        return {"language": Term(loss, int(batch["labels"].numel()))}
