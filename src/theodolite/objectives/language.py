"""Next-token prediction on answers: what vision-language models are trained by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from theodolite.objectives.terms import Term, Terms

IGNORE = -100


def next_token_loss(logits: Float[Tensor, "position vocabulary"], labels: Int[Tensor, " position"]) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats of each position's logits against the token that follows it; `IGNORE` is left out."""
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")


class Language:
    """The language term: cross-entropy of the answer tokens (end token included) given picture and question."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        """The summed loss over the batch's answer tokens. Labels stand at the position that predicts them.

        `batch["predicts"]` holds the flat indices of those positions, `batch["labels"]` the tokens that follow them.
        """
        inputs = {name: batch[name] for name in ("input_ids", "pixel_values", "attention_mask", "position_ids")}
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[batch["predicts"]]
        return {"language": Term(next_token_loss(logits, batch["labels"]), int(batch["labels"].numel()))}
