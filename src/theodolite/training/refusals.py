"""Options of the Trainer that would be ignored or fail midway: refused by name when the trainer is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainingArguments

from theodolite.models.exported.attention import FLEX
from theodolite.models.forward import base_model
from theodolite.records.errors import BadInput

# Arguments of the Trainer, with the reason and what to do.
TRAINER_OPTIONS: Mapping[str, str] = {
    "compute_metrics": "evaluation keeps sums of the loss's terms and no logits; take the eval_ metrics, or survey the saved model",
    "preprocess_logits_for_metrics": "evaluation keeps sums of the loss's terms and no logits; leave it out",
    "compute_loss_func": "the loss is the objective's; write an Objective for another one (docs/howto/objective.md)",
    "model_init": "the model is adapted before training; give the model itself",
}
# Fields of the training arguments: their neutral values, with the reason and what to do.
ARGUMENTS: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "label_smoothing_factor": ((0, 0.0), "the losses are the objective's, whose language term has no smoothing; set it to 0"),
    "neftune_noise_alpha": ((None,), "noise on embeddings would also reach vision tokens and the teacher; leave it out"),
    "use_liger_kernel": ((False,), "its kernels replace forwards that the objectives edit; leave it out"),
    "train_sampling_strategy": (
        ("random", "sequential"),
        "a sample's length is known only when its pictures are read; take random or sequential, and pack rows with "
        "PackingCollator(row_length=...)",
    ),
    "batch_eval_metrics": ((False,), "evaluation keeps sums of the loss's terms and no logits; leave it out"),
    "include_for_metrics": (([], None), "evaluation keeps sums of the loss's terms and no logits; leave it out"),
}


def refuse_unsupported(options: Mapping[str, Any], arguments: TrainingArguments | None) -> None:
    """Raises `BadInput` for the first option that is set and would not be obeyed."""
    for name, reason in TRAINER_OPTIONS.items():
        if options.get(name) is not None:
            raise BadInput(f"{name} is not supported: {reason}")
    for name, (neutral, reason) in ARGUMENTS.items():
        value = getattr(arguments, name, neutral[0])
        if value not in neutral:
            raise BadInput(f"{name}={getattr(value, 'value', value)} is not supported: {reason}")


def refuse_flex_on_cpu(model: Any, device: torch.device) -> None:
    """Raises `BadInput` for training with flex attention on a CPU, where PyTorch has no backward pass of it."""
    if device.type == "cpu" and base_model(model).config.get_text_config()._attn_implementation == FLEX:
        raise BadInput("flex attention has no backward pass on a CPU; train with attn_implementation sdpa or eager there, or on a GPU")


def refuse_reentrant(model: Any) -> None:
    """Raises `BadInput` for activation checkpointing by reentrant autograd.

    It gives no gradients to layers whose inputs need none, such as adapters in a vision tower, and does not say so.
    """
    for name, module in model.named_modules():
        if getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {}).get("use_reentrant"):
            raise BadInput(
                f"activation checkpointing of {name or 'the model'} is reentrant, which leaves trained layers of the vision tower without "
                "gradients; set use_reentrant to False in activation_checkpointing_kwargs"
            )
