"""Layout of a batch: each token's sample, branch, picture, and (row, column) in the picture.

A row may hold several samples (packing), a sample several pictures, after its trunk several branches that do not see each other, and
after a branch's stem several twigs (the choices of a question) that do not see each other either. This file is copied beside exported
models, so it imports only torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

NONE = -1
TENSORS = ("sample", "branch", "picture", "cell", "twig")


@dataclass(frozen=True)
class LayoutFacts:
    """What the host decides by: tokens of each picture in order, whether there is padding, whether causal attention would mix samples."""

    sizes: tuple[int, ...]
    is_padded: bool
    is_packed: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """Integers for each token, each (row, token), and `cell` (row, token, 2).

    `sample` is `NONE` at padding; `branch` is 0 in a sample's trunk, and branches follow their trunk; `picture` numbers the pictures of
    the whole batch in order, row by row, and is `NONE` at text; `cell` is (row, column) in the picture, 0 at text. `twig` is 0 in a
    branch's stem (and in the trunk), and twigs follow their stem; None where no branch has twigs.

    `known` are facts that were computed on the host, with the flat positions of vision tokens; without it they are read from the tensors,
    for which the host waits if these are on a GPU.
    """

    sample: Tensor
    branch: Tensor
    picture: Tensor
    cell: Tensor
    twig: Tensor | None = None
    known: tuple[LayoutFacts, Tensor] | None = None

    @cached_property
    def facts(self) -> LayoutFacts:
        """Sizes, padding and packing, as Python values."""
        if self.known is not None:
            return self.known[0]
        first = self.sample.max(dim=1, keepdim=True).values
        return LayoutFacts(
            tuple(torch.bincount(self.picture.flatten()[self.vision_index]).tolist()) if len(self.vision_index) else (),
            not bool(self.real.all()),
            bool(((self.sample != first) & self.real).any() or (self.branch > 0).any()),
        )

    @cached_property
    def vision_index(self) -> Tensor:
        """(vision): flat positions of the vision tokens, in order."""
        return self.vision.flatten().nonzero()[:, 0] if self.known is None else self.known[1]

    def to(self, device: Any) -> Layout:
        """The layout on a device, with its facts; copies from pinned memory do not wait."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if name in TENSORS and value is not None}
        return replace(self, **moved, known=(self.facts, self.vision_index.to(device, non_blocking=True)))

    def pinned(self) -> Layout:
        """The layout of the host in pinned memory, with its facts."""
        pinned = {name: value.pin_memory() for name, value in vars(self).items() if name in TENSORS and value is not None}
        return replace(self, **pinned, known=(self.facts, self.vision_index.pin_memory()))

    @property
    def real(self) -> Tensor:
        """(row, token): whether a token is not padding."""
        return self.sample != NONE

    @property
    def vision(self) -> Tensor:
        """(row, token): whether a token is a picture's."""
        return self.picture != NONE

    @property
    def is_packed(self) -> bool:
        """Whether a row holds several samples, or branches, which causal attention alone would mix."""
        return self.facts.is_packed

    @property
    def has_pictures(self) -> bool:
        """Whether a token is a picture's."""
        return bool(self.facts.sizes)

    def sizes(self) -> list[int]:
        """Tokens of each picture, in order."""
        return list(self.facts.sizes)

    def gather(self, index: Tensor) -> Layout:
        """The layout of the tokens at flat positions `index` (row, token), `NONE` at padding."""
        position, padding = index.clamp(min=0), index == NONE
        return Layout(
            self.sample.flatten()[position].masked_fill(padding, NONE),
            self.branch.flatten()[position].masked_fill(padding, 0),
            self.picture.flatten()[position].masked_fill(padding, NONE),
            self.cell.flatten(0, 1)[position].masked_fill(padding[..., None], 0),
            None if self.twig is None else self.twig.flatten()[position].masked_fill(padding, 0),
        )


def layout_of(input_ids: Tensor, image_token_id: int, grids: Sequence[Tensor], attention_mask: Tensor | None = None) -> Layout:
    """The layout of unpacked rows, one sample each, from (row, token) ids, each picture's (tokens, 2) cells in order, and the padding mask.

    Raises `ValueError` if the number of image tokens is not that of the pictures' cells.
    """
    sample = sample_of_rows(input_ids, attention_mask)
    picture, cell = mark_pictures((input_ids == image_token_id) & (sample != NONE), grids)
    return Layout(sample, torch.zeros_like(sample), picture, cell)


def sample_of_rows(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(row, token): the `sample` of rows of one sample each: the row's number, `NONE` where the mask is 0."""
    rows, width = tokens.shape
    sample = torch.arange(rows, device=tokens.device)[:, None].repeat(1, width)
    return sample if attention_mask is None else sample.masked_fill(attention_mask == 0, NONE)


def mark_pictures(vision: Tensor, grids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Each token's picture (row, token) and cell (row, token, 2), from the mask of image tokens and the pictures' cells in order.

    Raises `ValueError` if the counts differ.
    """
    expected, num_tokens = sum(len(grid) for grid in grids), int(vision.sum())
    if expected != num_tokens:
        raise ValueError(
            f"the pictures have {expected} tokens, but the text has places for {num_tokens}; give each picture all of its image tokens"
        )
    picture = torch.full(vision.shape, NONE, device=vision.device)
    cell = torch.zeros(*vision.shape, 2, dtype=torch.long, device=vision.device)
    if grids:
        lengths = torch.tensor([len(grid) for grid in grids])
        picture[vision] = torch.repeat_interleave(torch.arange(len(grids)), lengths).to(vision.device)
        cell[vision] = torch.cat(list(grids)).to(vision.device)
    return picture, cell


def prefix_index(layout: Layout) -> Tensor:
    """Flat positions (row, token) of every sample's tokens up to its last picture's end, left-aligned; `NONE` pads on the right.

    These are all that a picture's tokens can see under causal or mixed attention. Samples without pictures are left out. Without any
    picture the result is one row of one padding position.
    """
    rows, width = layout.sample.shape
    column = torch.arange(width, device=layout.sample.device).expand(rows, width)
    last = torch.full((rows, width), NONE, device=layout.sample.device)
    start = _run_start(layout.sample)
    last.scatter_reduce_(1, start, torch.where(layout.vision, column, NONE), "amax")
    keep = layout.real & (column <= last.gather(1, start)) & (layout.branch == 0)
    return _left_aligned(keep)


def pictures_index(layout: Layout) -> Tensor:
    """Flat positions (row, token) of the pictures' tokens alone, packed in order into rows as wide as the largest picture.

    No picture is split; `NONE` pads on the right. Without any picture the result is one row of one padding position.
    """
    if not layout.has_pictures:
        return _padding_only(layout.sample.device)
    positions, sizes = layout.vision_index, layout.sizes()
    rows: list[list[Tensor]] = []
    widest, used = max(sizes, default=0), 0
    for picture in positions.split(sizes):
        if not rows or used + len(picture) > widest:
            rows.append([])
            used = 0
        rows[-1].append(picture)
        used += len(picture)
    index = torch.full((len(rows), widest), NONE, device=positions.device)
    for number, pictures in enumerate(rows):
        row = torch.cat(pictures)
        index[number, : len(row)] = row
    return index


def alone(layout: Layout) -> Layout:
    """The same tokens with each picture as its own sample."""
    return Layout(layout.picture, torch.zeros_like(layout.branch), layout.picture, layout.cell)


def segment_start(layout: Layout) -> Tensor:
    """(row, token): the column at which the token's run of one sample, branch and twig starts."""
    return _run_start(*(labels for labels in (layout.sample, layout.branch, layout.twig) if labels is not None))


def _run_start(*labels: Tensor) -> Tensor:
    """(row, token): the column at which the token's run of equal labels starts, which identifies the run within its row."""
    column = torch.arange(labels[0].shape[1], device=labels[0].device).expand_as(labels[0])
    starts = torch.ones_like(labels[0], dtype=torch.bool)
    starts[:, 1:] = torch.stack([label[:, 1:] != label[:, :-1] for label in labels]).any(dim=0)
    return torch.where(starts, column, 0).cummax(dim=1).values


def sum_over_ancestors(layout: Layout, values: Tensor) -> Tensor:
    """(row, token): the sum of `values` over the runs that precede the token's: its trunk in a branch, and its stem in a twig."""
    trunk = _sum_by_run(_run_start(layout.sample), torch.where(layout.branch == 0, values, 0))
    total = torch.where(layout.branch > 0, trunk, 0)
    if layout.twig is None:
        return total
    stem = _sum_by_run(_run_start(layout.sample, layout.branch), torch.where(layout.twig == 0, values, 0))
    return total + torch.where(layout.twig > 0, stem, 0)


def _sum_by_run(start: Tensor, values: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_add_(1, start, values).gather(1, start)


def _left_aligned(keep: Tensor) -> Tensor:
    """Flat positions of the tokens to keep of each row, in order, from the left; rows without any are left out."""
    rows, width = keep.shape
    counts = keep.sum(dim=1)
    if not bool(counts.any()):
        return _padding_only(keep.device)
    order = torch.argsort((~keep).to(torch.int8), dim=1, stable=True)
    flat = order + torch.arange(rows, device=keep.device)[:, None] * width
    column = torch.arange(width, device=keep.device)
    index = torch.where(column < counts[:, None], flat, NONE)
    return index[counts > 0, : int(counts.max())]


def _padding_only(device: torch.device) -> Tensor:
    """One padding position: a batch without pictures still makes its pass, so that every process runs the same modules."""
    return torch.full((1, 1), NONE, device=device)
