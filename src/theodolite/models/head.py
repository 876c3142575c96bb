"""The output head of a VLM applied to hidden states of any layer: its final norm, its head, and the cap of its logits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from theodolite.models.families import family_of
from theodolite.models.forward import base_model
from theodolite.records.errors import BadInput


def logits_of(model: Any, hidden: Float[Tensor, "token dim"]) -> Float[Tensor, "token vocabulary"]:
    """Logits of hidden states before the final norm, float32: of the last layer's they are the model's own.

    Norm and head are the model's own modules, so a head that is tied to the input embeddings, or has an adapter, is meant too. Gemma
    multiplies its input embeddings by sqrt(dim): its norm takes that out. Of the families' stock forwards only PaliGemma's caps the
    logits (`final_logit_softcapping`, cap * tanh(logits / cap)), which keeps their order and moves their probabilities. Raises `BadInput`
    for a language model without the family's final norm.
    """
    base = base_model(model)
    family = family_of(base.config)
    try:
        norm = base.get_submodule(f"{family.language_model}.{family.final_norm}")
    except AttributeError as error:
        kind = type(base.get_submodule(family.language_model)).__name__
        raise BadInput(f"{kind} has no final norm {family.final_norm!r}, so its hidden states cannot be read as words") from error
    # `forward`, not the call: within a pass a hook of the call selects the positions at which that pass wants logits.
    logits: Tensor = base.get_submodule(family.lm_head).forward(norm(hidden)).float()
    cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None) if family.caps_logits else None
    return logits if cap is None else cap * torch.tanh(logits / cap)
