"""Inputs of one forward pass: the whole batch, each sample up to its last picture, or the pictures alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from theodolite.models.exported.layout import NONE, Layout, alone, pictures_index, prefix_index
from theodolite.models.families import family_of, image_token_id


@dataclass(frozen=True, eq=False)
class PassInputs:
    """Tokens and their layout, the pictures' pixels, the masked vision tokens, and the positions at which logits are wanted.

    `wanted` are flat positions; None means no logits. `suffix` marks the tokens after the prompt, which a prefix language model
    (PaliGemma) attends to causally; None means there are none.
    """

    input_ids: Int[Tensor, "row token"]
    layout: Layout
    pixels: Mapping[str, Tensor]
    masked: Bool[Tensor, "row token"] | None = None
    wanted: Int[Tensor, " wanted"] | None = None
    suffix: Bool[Tensor, "row token"] | None = None


def layout_in(batch: Mapping[str, Any]) -> Layout:
    """The layout that a collator put into a batch."""
    return Layout(batch["sample"], batch["branch"], batch["picture"], batch["cell"])


def whole_inputs(config: Any, batch: Mapping[str, Any], *, masked: Bool[Tensor, "row token"] | None = None) -> PassInputs:
    """All tokens of a batch, with logits wanted at the positions that predict an answer token."""
    family = family_of(config)
    pixels = {name: batch[name] for name in family.pixel_inputs if name in batch}
    suffix = _suffix(batch) if family.attention == "prefix" else None
    return PassInputs(batch["input_ids"], layout_in(batch), pixels, masked, batch["predicts"], suffix)


def prefix_inputs(config: Any, inputs: PassInputs) -> PassInputs:
    """Each sample up to its last picture's end: all that vision tokens see under causal or mixed attention. No logits, nothing masked."""
    index = _dummy_index(config, inputs)
    index = prefix_index(inputs.layout) if index is None else index
    return PassInputs(_tokens_at(inputs.input_ids, index, config), inputs.layout.gather(index), inputs.pixels)


def picture_inputs(config: Any, inputs: PassInputs) -> PassInputs:
    """The pictures' tokens alone, each picture as its own sample, several in a row where they fit. Masked tokens stay masked. No logits."""
    index, layout = _dummy_index(config, inputs), inputs.layout
    if index is None:
        index, layout = pictures_index(inputs.layout), alone(inputs.layout)
    masked = None if inputs.masked is None else inputs.masked.flatten()[index.clamp(min=0)] & (index != NONE)
    return PassInputs(_tokens_at(inputs.input_ids, index, config), layout.gather(index), inputs.pixels, masked)


def _dummy_index(config: Any, inputs: PassInputs) -> Int[Tensor, "1 token"] | None:
    """Flat positions of a dummy picture's tokens (`training.dummy_picture`), which the layout takes for text; None if there is none."""
    if not inputs.pixels or bool(inputs.layout.vision.any()):
        return None
    return (inputs.input_ids.flatten() == image_token_id(config)).nonzero()[:, 0][None]


def _tokens_at(input_ids: Int[Tensor, "row token"], index: Int[Tensor, "part width"], config: Any) -> Int[Tensor, "part width"]:
    """The tokens at flat positions; padding gets an id other than the image token's."""
    filler = 0 if image_token_id(config) != 0 else 1
    return input_ids.flatten()[index.clamp(min=0)].masked_fill(index == NONE, filler)


def _suffix(batch: Mapping[str, Any]) -> Bool[Tensor, "row token"]:
    """(row, token): whether a token comes after the prompt, that is after the first position that predicts an answer token."""
    rows, width = batch["input_ids"].shape
    row, column = batch["predicts"] // width, batch["predicts"] % width
    first = torch.full((rows,), width, device=row.device).scatter_reduce_(0, row, column, "amin")
    return torch.arange(width, device=row.device)[None] > first[:, None]
