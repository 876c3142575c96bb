"""What a picture is to the language model: the connector's tokens, kept so that many questions, and edits of them, see it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from theodolite.models.families import family_of
from theodolite.models.forward import base_model


@dataclass(frozen=True, eq=False)
class VisionFeatures:
    """Vision tokens of pictures of equal size, as the connector gives them.

    `past` are features that go past the input to the first layers (deepstack, Qwen3-VL). `patches` are what the encoder gave, if wanted.
    """

    tokens: Float[Tensor, "picture token dim"]
    past: tuple[Float[Tensor, "picture token dim"], ...] = ()
    patches: Float[Tensor, "picture patch channel"] | None = None
    # Tokens of each entry of a list, or of each tile of one tensor: the form in which the stock forward hands them on.
    tile: int | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, pictures: Int[Tensor, " row"]) -> VisionFeatures:
        """The pictures at these positions, in this order, each as often as it is named."""
        patches = None if self.patches is None else self.patches[pictures]
        return replace(self, tokens=self.tokens[pictures], past=tuple(part[pictures] for part in self.past), patches=patches)

    def edit(self, change: Callable[[Tensor], Tensor], change_past: Callable[[Tensor], Tensor] | None = None) -> VisionFeatures:
        """With the tokens changed, and what goes past the input by `change_past`, if that is given."""
        past = self.past if change_past is None else tuple(change_past(part) for part in self.past)
        return replace(self, tokens=change(self.tokens), past=past)

    def outputs(self) -> dict[str, Any]:
        """The keyword argument `mm_encoder_outputs` of the stock forward, which then runs no encoder."""
        flat = self.tokens.flatten(0, 1)
        pooled: Any = [flat] if self.tile is None else flat.unflatten(0, (-1, self.tile))
        found = BaseModelOutputWithPooling(pooler_output=pooled)
        if self.past:
            # The library's own output class for it differs from this one by that field alone: a list for each layer.
            found.deepstack_features = [[part.flatten(0, 1)] for part in self.past]
        return {"image": found}


def encode_pictures(model: Any, pixels: Mapping[str, Tensor], num_pictures: int, *, patches: bool = False) -> VisionFeatures:
    """The vision tokens of pictures of equal size, from their pixel inputs, and with `patches` what the encoder gave of each.

    Runs the library's own `get_image_features`. Raises `ValueError` if the tokens do not divide evenly among the pictures.
    """
    base = base_model(model)
    family = family_of(base.config)
    kept: list[Tensor] = []
    hook = base.get_submodule(family.connector[0]).register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        output = base.model.get_image_features(**pixels, return_dict=True)
    finally:
        hook.remove()
    pooled = output.pooler_output
    tile = pooled.shape[-2] if isinstance(pooled, Tensor) else None
    flat = pooled.flatten(0, -2) if isinstance(pooled, Tensor) else torch.cat(list(pooled))
    past = tuple(_even(torch.cat(list(part)), num_pictures) for part in getattr(output, "deepstack_features", None) or ())
    found = _even(torch.cat([part.flatten(0, -2) for part in kept]), num_pictures) if patches else None
    return VisionFeatures(_even(flat, num_pictures), past, found, tile)


def join_sights(parts: Sequence[VisionFeatures]) -> VisionFeatures:
    """Several sights of pictures of one size as one."""
    first = parts[0]
    return replace(
        first,
        tokens=torch.cat([part.tokens for part in parts]),
        past=tuple(torch.cat(list(column)) for column in zip(*(part.past for part in parts), strict=True)),
        patches=None if first.patches is None else torch.cat([part.patches for part in parts if part.patches is not None]),
    )


def _even(flat: Float[Tensor, "all dim"], num_pictures: int) -> Float[Tensor, "picture token dim"]:
    if len(flat) % num_pictures:
        raise ValueError(f"{len(flat)} vision tokens do not divide among {num_pictures} pictures; see pictures of one size together")
    return flat.unflatten(0, (num_pictures, -1))
