"""Next-token prediction on answers, the standard objective of vision-language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from theodolite.models.conversation_tokenizer import IGNORE
from theodolite.models.encoder_output import EncoderOutput
from theodolite.models.forward import STOCK, Adaptation, ForwardOutput, base_model, run_forward
from theodolite.models.pass_inputs import PassInputs, whole_inputs
from theodolite.objectives.terms import Objective, Term, Terms

# Logits that exist at a time: 268 MB in single precision, and as much for their gradient.
MOST_LOGITS = 2**26


def next_token_loss(logits: Float[Tensor, "position vocabulary"], labels: Int[Tensor, " position"]) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats of each position's logits against the token that follows it; labels of `IGNORE` are left out."""
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")


def chunked_loss(
    head: Callable[[Tensor], Tensor],
    states: Float[Tensor, "position dim"],
    labels: Int[Tensor, " position"],
    vocabulary: int,
    most_logits: int = MOST_LOGITS,
) -> Float[Tensor, ""]:
    """`next_token_loss` of the head's logits (position, vocabulary) at these hidden states, at most `most_logits` logits at a time.

    Where there are more, each part of the positions is computed again in the backward pass.
    """
    rows = max(most_logits // vocabulary, 1)
    if len(labels) <= rows:
        return next_token_loss(head(states), labels)

    def part(states: Tensor, labels: Tensor) -> Tensor:
        return next_token_loss(head(states), labels)

    losses = [
        checkpoint(part, *pair, use_reentrant=False) for pair in zip(torch.split(states, rows), torch.split(labels, rows), strict=True)
    ]
    return torch.stack(losses).sum()


def answer_loss(
    model: nn.Module,
    inputs: PassInputs,
    labels: Int[Tensor, " position"],
    adaptation: Adaptation = STOCK,
    mask_embedding: nn.Module | None = None,
    encoded: EncoderOutput | None = None,
) -> tuple[Float[Tensor, ""], ForwardOutput]:
    """Summed cross-entropy in nats of the tokens that follow the wanted positions, and the pass itself, without logits.

    The further arguments are those of `run_forward`. The loss is computed where the stock forward computes logits, so that
    the head's weights are there under FSDP2.
    """
    vocabulary = base_model(model).config.get_text_config().vocab_size

    def at_head(forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        return chunked_loss(forward, states, labels, vocabulary)

    output = run_forward(model, inputs, adaptation, mask_embedding, encoded, at_head=at_head)
    return output.logits[0, 0], output


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
