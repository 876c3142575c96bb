"""Next-token prediction on answers, the standard objective of vision-language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from theodolite.models.conversation_tokenizer import IGNORE
from theodolite.models.encoder_output import EncoderOutput
from theodolite.models.forward import STOCK, Adaptation, base_model, run_forward
from theodolite.models.pass_inputs import PassInputs, whole_inputs
from theodolite.objectives.auxiliary import AnswerPass, HeadLoss
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

    def part(states: Tensor, labels: Tensor) -> Tensor:
        return next_token_loss(head(states), labels)

    return summed_in_parts(part, (states, labels), max(most_logits // vocabulary, 1))


def summed_in_parts(part: Callable[..., Tensor], tensors: Sequence[Tensor], rows: int) -> Tensor:
    """The sum of `part` over tensors of one length, at most `rows` entries at a time.

    Where there are more, each part is computed again in the backward pass.
    """
    if len(tensors[0]) <= rows:
        return part(*tensors)
    parts = zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)
    return torch.stack([checkpoint(part, *each, use_reentrant=False) for each in parts]).sum(dim=0)


def answer_loss(
    model: nn.Module,
    inputs: PassInputs,
    batch: Mapping[str, Any],
    adaptation: Adaptation = STOCK,
    mask_embedding: nn.Module | None = None,
    encoded: EncoderOutput | None = None,
    beside: Sequence[HeadLoss] = (),
) -> AnswerPass:
    """Summed cross-entropy in nats of the batch's labels at the wanted positions, with the losses `beside` it, and the pass itself.

    The other arguments are those of `run_forward`. All are computed where the stock forward computes logits, so that the head's weights
    are there under FSDP2; the pass has no logits.
    """
    vocabulary, labels = base_model(model).config.get_text_config().vocab_size, batch["labels"]
    further = [loss.positions(batch) for loss in beside]
    sizes = [len(labels), *map(len, further)]

    def at_head(forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        own, *others = torch.split(states, sizes)
        values = [loss.at_head(forward, each, batch, vocabulary) for loss, each in zip(beside, others, strict=True)]
        return torch.cat([chunked_loss(forward, own, labels, vocabulary)[None], *values])

    if further:
        inputs = replace(inputs, wanted=torch.cat([batch["predicts"], *further]))
    output = run_forward(model, inputs, adaptation, mask_embedding, encoded, at_head=at_head)
    loss, *values = torch.split(output.logits[0], [1, *(len(each.names) for each in beside)])
    return AnswerPass(loss[0], output, dict(zip(beside, values, strict=True)))


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
        answers = answer_loss(model, whole_inputs(base_model(model).config, batch), batch, self.adaptation)
        return {"language": Term(answers.loss, int(batch["labels"].numel()))}
