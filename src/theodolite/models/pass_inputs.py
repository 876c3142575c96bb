"""What a pass looks at: the whole batch, each sample up to its last picture, or the pictures alone."""

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
    """Tokens, where they stand, the pictures' pixels, which vision tokens are masked, and where logits are wanted.

    `wanted` are flat places; None asks for no logits at all. `suffix` marks the tokens behind a prompt that a prefix language model
    (PaliGemma) attends to causally; None stands for none.
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


def whole_view(config: Any, batch: Mapping[str, Any], *, masked: Bool[Tensor, "row token"] | None = None) -> PassInputs:
    """All tokens of a batch, with logits wanted where an answer token is predicted."""
    family = family_of(config)
    pixels = {name: batch[name] for name in family.pixel_inputs if name in batch}
    suffix = _suffix(batch) if family.attention == "prefix" else None
    return PassInputs(batch["input_ids"], layout_in(batch), pixels, masked, batch["predicts"], suffix)


def prefix_view(config: Any, view: PassInputs) -> PassInputs:
    """Each sample up to its last picture's end: all that causal or mixed attention lets vision tokens see. No logits, nothing masked."""
    index = prefix_index(view.layout)
    return PassInputs(picked(view.input_ids, index, config), view.layout.gather(index), view.pixels)


def pictures_view(config: Any, view: PassInputs) -> PassInputs:
    """The pictures' tokens alone, each picture a sample of its own, several to a row where they fit. Masked tokens stay masked."""
    index = pictures_index(view.layout)
    masked = None if view.masked is None else view.masked.flatten()[index.clamp(min=0)] & (index != NONE)
    return PassInputs(picked(view.input_ids, index, config), alone(view.layout).gather(index), view.pixels, masked)


def picked(input_ids: Int[Tensor, "row token"], index: Int[Tensor, "part width"], config: Any) -> Int[Tensor, "part width"]:
    """The tokens at flat places; padding is a token that stands for no picture."""
    filler = 0 if image_token_id(config) != 0 else 1
    return input_ids.flatten()[index.clamp(min=0)].masked_fill(index == NONE, filler)


def _suffix(batch: Mapping[str, Any]) -> Bool[Tensor, "row token"]:
    """What stands behind the last token of the prompt: the first place of a row at which an answer token is predicted."""
    rows, width = batch["input_ids"].shape
    row, column = batch["predicts"] // width, batch["predicts"] % width
    first = torch.full((rows,), width, device=row.device).scatter_reduce_(0, row, column, "amin")
    return torch.arange(width, device=row.device)[None] > first[:, None]
