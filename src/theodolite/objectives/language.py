"""Next-token prediction on answers, the standard objective of vision-language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from theodolite.models.conversation_tokenizer import IGNORE
from theodolite.models.forward import STOCK, Adaptation, base_model, run_forward
from theodolite.models.pass_inputs import whole_inputs
from theodolite.objectives.terms import Objective, Term, Terms


def next_token_loss(logits: Float[Tensor, "position vocabulary"], labels: Int[Tensor, " position"]) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats of each position's logits against the token that follows it; labels of `IGNORE` are left out."""
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")


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
        output = run_forward(model, whole_inputs(base_model(model).config, batch), self.adaptation)
        return {"language": Term(next_token_loss(output.logits, batch["labels"]), int(batch["labels"].numel()))}
