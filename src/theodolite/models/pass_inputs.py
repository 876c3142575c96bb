"""Inputs of one forward pass: the whole batch, each sample up to its last picture, or the pictures alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.models.encoder_inputs import placed
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


@dataclass(frozen=True, eq=False)
class PartIndex:
    """Some tokens of a batch in rows of their own: their flat positions in the batch (`NONE` at padding), and their layout."""

    index: Int[Tensor, "part width"]
    layout: Layout

    def to(self, device: Any) -> PartIndex:
        """Both on a device."""
        return PartIndex(self.index.to(device, non_blocking=True), self.layout.to(device))

    def take(self, values: Tensor, filler: Any) -> Tensor:
        """(part, width): the values of the tokens from those of the batch (row, token)."""
        return values.flatten()[self.index.clamp(min=0)].masked_fill(self.index == NONE, filler)


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """A batch's layout on the host, with what follows from it: a collator makes it, so that no pass over the batch waits for the device.

    It is not a tensor and not a mapping, so accelerate leaves it where it is. `rank`, `dither` and `size` (row, token) are those of
    `objectives.masking.masked_tokens`.
    """

    layout: Layout
    rank: Int[Tensor, "row token"]
    dither: Float[Tensor, "row token"]
    # Flat positions of a dummy picture's tokens (`training.dummy_picture`), which the layout takes for text.
    dummy: Int[Tensor, "1 dummy"] | None = None
    # The widths of parts are multiples of this.
    multiple: int = 1
    # Of the pictures, what `models.encoder_inputs` derives from their grids.
    encoder: Mapping[str, Tensor] = field(default_factory=dict)
    # Of pairs of pictures (`objectives.interventional`), the questions whose truth stays and those whose truth moves; None without pairs.
    num_pairs: tuple[int, int] | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Any], multiple: int = 1, encoder: Mapping[str, Tensor] | None = None) -> BatchPlan:
        """The plan of a batch; of one on a device, after copies to the host. Its parts' widths are multiples of `multiple`."""
        host = Layout(*(batch[name].cpu() for name in ("sample", "branch", "picture", "cell")))
        layout = replace(host, known=(host.facts, host.vision_index))
        num_pairs = None
        if (moves := batch.get("pair_moves")) is not None:
            num_moving = int(moves.sum())
            num_pairs = (len(moves) - num_moving, num_moving)
        draws = (batch["rank"].cpu(), batch["dither"].cpu())
        return cls(layout, *draws, multiple=multiple, encoder=encoder or {}, num_pairs=num_pairs)

    @cached_property
    def size(self) -> Int[Tensor, "row token"]:
        """The number of tokens of the token's picture, 0 at text."""
        size = torch.zeros_like(self.layout.picture).flatten()
        index = self.layout.vision_index
        size[index] = torch.tensor(self.layout.sizes(), dtype=torch.long)[self.layout.picture.flatten()[index]]
        return size.view_as(self.layout.picture)

    @cached_property
    def prefix(self) -> PartIndex:
        """Each sample up to its last picture's end: all that vision tokens see under causal or mixed attention."""
        return self._part(prefix_index(self.layout) if self.dummy is None else self.dummy, self.layout)

    @cached_property
    def pictures(self) -> PartIndex:
        """The pictures' tokens alone, each picture as its own sample, several in a row where they fit."""
        return self._part(pictures_index(self.layout), alone(self.layout)) if self.dummy is None else self.prefix

    def ahead(self) -> BatchPlan:
        """The plan with every part computed: for a loader's worker, which then sends them along."""
        _ = self.size, self.prefix, self.pictures
        return self

    def _part(self, index: Tensor, layout: Layout) -> PartIndex:
        index = F.pad(index, (0, -index.shape[1] % self.multiple), value=NONE)
        part = layout.gather(index)
        return PartIndex(index, replace(part, known=(part.facts, part.vision_index)))


def plan_of(batch: Mapping[str, Any]) -> BatchPlan:
    """The plan that the collator put into a batch, else one computed now."""
    plan: BatchPlan | None = batch.get("plan")
    return BatchPlan.of(batch) if plan is None else plan


def layout_in(batch: Mapping[str, Any]) -> Layout:
    """The layout that a collator put into a batch, with the facts of its plan if it has one."""
    layout = Layout(batch["sample"], batch["branch"], batch["picture"], batch["cell"])
    if (plan := batch.get("plan")) is None:
        return layout
    return replace(layout, known=(plan.layout.facts, plan.layout.vision_index.to(layout.sample.device, non_blocking=True)))


def whole_inputs(config: Any, batch: Mapping[str, Any], *, masked: Bool[Tensor, "row token"] | None = None) -> PassInputs:
    """All tokens of a batch, with logits wanted at the positions that predict an answer token."""
    family = family_of(config)
    pixels = {name: batch[name] for name in family.pixel_inputs if name in batch}
    if (plan := batch.get("plan")) is not None:
        pixels |= placed(plan.encoder, config, batch["input_ids"].device)
    suffix = _suffix(batch) if family.attention == "prefix" else None
    return PassInputs(batch["input_ids"], layout_in(batch), pixels, masked, batch["predicts"], suffix)


def part_inputs(config: Any, inputs: PassInputs, part: PartIndex) -> PassInputs:
    """Some tokens of a pass alone. Masked tokens stay masked; no logits. Padding gets an id other than the image token's."""
    filler = 0 if image_token_id(config) != 0 else 1
    part = part.to(inputs.input_ids.device)
    masked = None if inputs.masked is None else part.take(inputs.masked, False)
    return PassInputs(part.take(inputs.input_ids, filler), part.layout, inputs.pixels, masked)


def _suffix(batch: Mapping[str, Any]) -> Bool[Tensor, "row token"]:
    """(row, token): whether a token comes after the prompt, that is after the first position that predicts an answer token."""
    rows, width = batch["input_ids"].shape
    row, column = batch["predicts"] // width, batch["predicts"] % width
    first = torch.full((rows,), width, device=row.device).scatter_reduce_(0, row, column, "amin")
    return torch.arange(width, device=row.device)[None] > first[:, None]
