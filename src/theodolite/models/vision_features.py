"""Vision tokens of pictures, computed once and reused for many questions, edited or not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
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
    """The connector's outputs for pictures of equal size.

    `past` are features added in the first layers, not in the input embeddings (deepstack, Qwen3-VL), one tensor a layer. `patches` are
    the encoder's outputs, if asked for.
    """

    tokens: Float[Tensor, "picture token dim"]
    past: tuple[Float[Tensor, "picture token dim"], ...] = ()
    patches: Float[Tensor, "picture patch channel"] | None = None
    # Tokens of each tile where the stock forward passes the outputs on as one tensor; None where it passes on a list.
    tile: int | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, pictures: Int[Tensor, " row"]) -> VisionFeatures:
        """The features of the pictures at these positions, in this order; positions may repeat."""
        patches = None if self.patches is None else self.patches[pictures]
        return replace(self, tokens=self.tokens[pictures], past=tuple(layer[pictures] for layer in self.past), patches=patches)

    def edit(self, change: Callable[[Tensor], Tensor], change_past: Callable[[Tensor], Tensor] | None = None) -> VisionFeatures:
        """The features with `change` applied to the tokens, and `change_past`, if any, to each tensor of `past`."""
        past = self.past if change_past is None else tuple(change_past(layer) for layer in self.past)
        return replace(self, tokens=change(self.tokens), past=past)

    def outputs(self) -> dict[str, Any]:
        """The keyword argument `mm_encoder_outputs` of the stock forward, which then runs no encoder."""
        flat = self.tokens.flatten(0, 1)
        pooled: Any = [flat] if self.tile is None else flat.unflatten(0, (-1, self.tile))
        output = BaseModelOutputWithPooling(pooler_output=pooled)
        if self.past:
            # The library's own output class differs from this one only in this field: a list for each layer.
            output.deepstack_features = [[layer.flatten(0, 1)] for layer in self.past]
        return {"image": output}


def join_features(parts: Sequence[VisionFeatures]) -> VisionFeatures:
    """The features of several groups of pictures of one size, without patches, in order."""
    past = tuple(torch.cat(layers) for layers in zip(*(part.past for part in parts), strict=True))
    return VisionFeatures(torch.cat([part.tokens for part in parts]), past, tile=parts[0].tile)


class FeatureStore:
    """Vision tokens of pictures by key, on the model's device, up to a number of bytes; what exceeds it is encoded each time."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.num_bytes = most_bytes, 0
        self._features: dict[Hashable, VisionFeatures] = {}

    def __len__(self) -> int:
        return len(self._features)

    def add(self, keys: Sequence[Hashable], features: VisionFeatures) -> None:
        """Stores the features of each picture whose key is new, as long as there is room."""
        for number, key in enumerate(keys):
            own = [tensor[number : number + 1] for tensor in (features.tokens, *features.past)]
            size = sum(tensor.numel() * tensor.element_size() for tensor in own)
            if key not in self._features and self.num_bytes + size <= self.most_bytes:
                tokens, *past = (tensor.detach().clone() for tensor in own)  # a slice would hold the whole batch's memory
                self._features[key] = VisionFeatures(tokens, tuple(past), tile=features.tile)
                self.num_bytes += size

    def of(self, keys: Sequence[Hashable], encode: Callable[[Sequence[int]], VisionFeatures]) -> VisionFeatures:
        """The features of the pictures with these keys, in order; `encode` gives those at positions that are not stored."""
        missing = [number for number, key in enumerate(keys) if key not in self._features]
        if len(missing) == len(keys):
            features = encode(missing)
            self.add(keys, features)
            return features
        new = encode(missing) if missing else None
        place = {number: torch.tensor([at]) for at, number in enumerate(missing)}
        parts = [
            self._features[key] if new is None or number not in place else new.take(place[number].to(new.tokens.device))
            for number, key in enumerate(keys)
        ]
        if new is not None:
            self.add([keys[number] for number in missing], new)
        return join_features(parts)


def encode_pictures(model: Any, pixels: Mapping[str, Tensor], num_pictures: int, *, patches: bool = False) -> VisionFeatures:
    """The vision tokens of pictures of equal size, from their pixel inputs; with `patches`, the encoder's outputs too.

    Runs the library's own `get_image_features`. Raises `ValueError` if the tokens do not divide evenly among the pictures.
    """
    base = base_model(model)
    family = family_of(base.config)
    encoder_outputs: list[Tensor] = []
    hook = base.get_submodule(family.connector[0]).register_forward_pre_hook(lambda module, args: encoder_outputs.append(args[0]))
    try:
        output = base.model.get_image_features(**pixels, return_dict=True)
    finally:
        hook.remove()
    pooled = output.pooler_output
    tile = pooled.shape[-2] if isinstance(pooled, Tensor) else None
    flat = pooled.flatten(0, -2) if isinstance(pooled, Tensor) else torch.cat(list(pooled))
    past = tuple(_by_picture(torch.cat(list(layer)), num_pictures) for layer in getattr(output, "deepstack_features", None) or ())
    by_picture = _by_picture(torch.cat([states.flatten(0, -2) for states in encoder_outputs]), num_pictures) if patches else None
    return VisionFeatures(_by_picture(flat, num_pictures), past, by_picture, tile)


def _by_picture(flat: Float[Tensor, "all dim"], num_pictures: int) -> Float[Tensor, "picture token dim"]:
    if len(flat) % num_pictures:
        raise ValueError(
            f"{len(flat)} vision tokens do not divide among {num_pictures} pictures; encode only pictures of one size together"
        )
    return flat.unflatten(0, (num_pictures, -1))
