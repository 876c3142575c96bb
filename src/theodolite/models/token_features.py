"""What each vision token is made of: the encoder's features at the connector's first linear layer, one vector a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from theodolite.models.encoder_inputs import encoder_inputs
from theodolite.models.families import family_of
from theodolite.models.forward import base_model
from theodolite.models.pass_inputs import PassInputs
from theodolite.records.errors import BadInput

WINDOWS = "image_window_index"


@dataclass
class TokenFeatures:
    """The encoder's features of a pass, as the first linear layer of the connector was given them, as they are, detached."""

    config: Any
    channels: int
    values: Tensor | None = field(default=None, repr=False)

    def by_token(self, inputs: PassInputs, num_tokens: int) -> Float[Tensor, "vision channel"]:
        """The features in the order of the vision tokens of the pass; no row where it has no picture, or only a dummy.

        Raises `BadInput` if tokens and features are not as many: of tiles a model leaves out tokens, or adds some.
        """
        if num_tokens == 0:
            return torch.zeros(0, self.channels, device=inputs.input_ids.device)
        if self.values is None:
            raise ValueError("no pass has run within `recording_features`")
        flat = self.values.flatten(0, -2)
        if len(flat) != num_tokens:
            raise BadInput(
                f"the encoder gives {len(flat)} features for {num_tokens} vision tokens, so none is a token's own; this objective needs a "
                "family whose pictures are not cut into tiles"
            )
        if "window_index" not in family_of(self.config).plans:
            return flat
        planned = inputs.pixels if WINDOWS in inputs.pixels else encoder_inputs(self.config, inputs.pixels)
        return flat[torch.argsort(planned[WINDOWS].to(flat.device))]


def feature_layer(model: nn.Module) -> nn.Linear:
    """The first linear layer of the connector. Raises `BadInput` for a connector without one (Gemma 3)."""
    base = base_model(model)
    family = family_of(base.config)
    modules = chain.from_iterable(base.get_submodule(path).modules() for path in family.connector)
    layer = next((module for module in modules if isinstance(module, nn.Linear)), None)
    if layer is None:
        raise BadInput(f"the connector of {family.name} has no linear layer at which features could be read; take another objective")
    return layer


def refuse_trained_encoder(model: nn.Module) -> None:
    """Raises `BadInput` if a parameter of the encoder outside the connector is trained: its features are then no fixed target."""
    base = base_model(model)
    family = family_of(base.config)
    connector = {id(each) for path in family.connector for each in base.get_submodule(path).parameters()}
    if any(each.requires_grad and id(each) not in connector for each in base.get_submodule(family.encoder).parameters()):
        raise BadInput("the encoder is trained, so its features are no fixed target; freeze it, or leave this objective out")


@contextmanager
def recording_features(model: nn.Module) -> Iterator[TokenFeatures]:
    """Within the context, a pass leaves the features that its vision tokens are made of."""
    layer = feature_layer(model)
    features = TokenFeatures(base_model(model).config, layer.in_features)

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        features.values = args[0].detach()

    handle = layer.register_forward_pre_hook(record)
    try:
        yield features
    finally:
        handle.remove()
