"""Freezes a VLM except for the parts that a stage trains: the connector, the language model or adapters on it, the encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from theodolite.models.families import family_of

Part = Literal["connector", "language_model", "encoder"]


def set_trainable(model: Any, parts: Sequence[Part], lora_rank: int = 0) -> Any:
    """The model with `requires_grad` set on the given parts only.

    `language_model` includes its head; `encoder` includes the connector in families whose encoder contains it. With `lora_rank` above 0 the
    language model itself stays frozen, and the result is a peft model with adapters of that rank on its linear layers.
    """
    model.requires_grad_(False)
    adapters = lora_rank > 0 and "language_model" in parts
    trained = [parameter for part in parts if part != "language_model" or not adapters for parameter in _parameters(model, part)]
    if adapters:
        model = _with_adapters(model, lora_rank)  # freezes everything but the adapters
    for parameter in trained:
        parameter.requires_grad_(True)
    return model


def _parameters(model: Any, part: Part) -> Iterable[nn.Parameter]:
    family = family_of(model.config)
    if part == "language_model":
        yield from model.get_submodule(family.language_model).parameters()
        yield from model.get_submodule(family.lm_head).parameters()
        return
    if part == "encoder":
        yield from model.get_submodule(family.encoder).parameters()
        return
    for path in family.connector:
        yield from model.get_submodule(path).parameters()
    for path in family.connector_parameters:
        yield model.get_parameter(path)


def _with_adapters(model: Any, rank: int) -> Any:
    """The model in a peft wrapper, with adapters on every linear layer of the language model."""
    from peft import LoraConfig, get_peft_model

    root = family_of(model.config).language_model
    layers = model.get_submodule(root)
    targets = [f"{root}.{name}" for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
