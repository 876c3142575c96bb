"""Where each picture's tokens stand in a batch: which picture, which sample, which branch, and which (row, column) of the picture.

A row may hold several samples (packed), a sample several pictures, behind its trunk several branches that do not see each other, and
behind a branch's stem several twigs (the choices of a question) that do not see each other either. This file goes with exported models,
so it imports nothing but torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NONE = -1


@dataclass(frozen=True, eq=False)
class Layout:
    """Integers a token, each (row, token), and `cell` (row, token, 2).

    `sample` is `NONE` at padding; `branch` is 0 in a sample's trunk, and branches follow their trunk; `picture` numbers the pictures of
    the whole batch in the order in which they stand (row by row) and is `NONE` at text; `cell` is (row, column) in the picture, 0 at text.
    `twig` is 0 in a branch's stem (and in the trunk), which its twigs follow; None where no branch has any.
    """

    sample: Tensor
    branch: Tensor
    picture: Tensor
    cell: Tensor
    twig: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """(row, token): whether it is a token and not padding."""
        return self.sample != NONE

    @property
    def vision(self) -> Tensor:
        """(row, token): whether it is a picture's token."""
        return self.picture != NONE

    @property
    def is_packed(self) -> bool:
        """Whether some row holds several samples, or branches, so that causal attention alone would mix them."""
        first = self.sample.max(dim=1, keepdim=True).values
        return bool(((self.sample != first) & self.real).any() or (self.branch > 0).any())

    def sizes(self) -> list[int]:
        """Tokens of each picture, in order."""
        return torch.bincount(self.picture[self.vision]).tolist() if bool(self.vision.any()) else []

    def gather(self, index: Tensor) -> Layout:
        """The layout of the tokens at flat places `index` (row, token), `NONE` where there is padding."""
        at, gone = index.clamp(min=0), index == NONE
        return Layout(
            self.sample.flatten()[at].masked_fill(gone, NONE),
            self.branch.flatten()[at].masked_fill(gone, 0),
            self.picture.flatten()[at].masked_fill(gone, NONE),
            self.cell.flatten(0, 1)[at].masked_fill(gone[..., None], 0),
            None if self.twig is None else self.twig.flatten()[at].masked_fill(gone, 0),
        )


def layout_of(input_ids: Tensor, image_token_id: int, grids: Sequence[Tensor], attention_mask: Tensor | None = None) -> Layout:
    """The layout of unpacked rows, one sample each: (row, token) ids, each picture's (tokens, 2) cells in order, and the padding mask.

    Raises `ValueError` if the number of image tokens is not that of the pictures' cells.
    """
    sample = sample_of_rows(input_ids, attention_mask)
    picture, cell = mark_pictures((input_ids == image_token_id) & (sample != NONE), grids)
    return Layout(sample, torch.zeros_like(sample), picture, cell)


def sample_of_rows(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(row, token): the row's number, `NONE` where the mask is 0, for rows of one sample each."""
    rows, width = tokens.shape
    sample = torch.arange(rows, device=tokens.device)[:, None].repeat(1, width)
    return sample if attention_mask is None else sample.masked_fill(attention_mask == 0, NONE)


def mark_pictures(vision: Tensor, grids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Each token's picture (row, token) and cell (row, token, 2), given where image tokens stand and the pictures' cells in order.

    Raises `ValueError` if the counts differ.
    """
    expected, found = sum(len(grid) for grid in grids), int(vision.sum())
    if expected != found:
        raise ValueError(
            f"the pictures have {expected} tokens, but the text has places for {found}; give each picture all of its image tokens"
        )
    picture = torch.full(vision.shape, NONE, device=vision.device)
    cell = torch.zeros(*vision.shape, 2, dtype=torch.long, device=vision.device)
    if grids:
        lengths = torch.tensor([len(grid) for grid in grids])
        picture[vision] = torch.repeat_interleave(torch.arange(len(grids)), lengths).to(vision.device)
        cell[vision] = torch.cat(list(grids)).to(vision.device)
    return picture, cell


def prefix_index(layout: Layout) -> Tensor:
    """Flat places (row, token) of every sample's tokens up to its last picture's end, moved together; `NONE` pads on the right.

    What a picture's tokens can see under causal or mixed attention is all there; samples without pictures are left out. Without any
    picture there is one row of one padding place.
    """
    rows, width = layout.sample.shape
    column = torch.arange(width, device=layout.sample.device).expand(rows, width)
    last = torch.full((rows, width), NONE, device=layout.sample.device)
    slot = _run_start(layout.sample)
    last.scatter_reduce_(1, slot, torch.where(layout.vision, column, NONE), "amax")
    keep = layout.real & (column <= last.gather(1, slot)) & (layout.branch == 0)
    return _moved_together(keep)


def pictures_index(layout: Layout) -> Tensor:
    """Flat places (row, token) of the pictures' tokens alone, packed in order into rows as wide as the largest picture.

    No picture is cut; `NONE` pads on the right. Without any picture there is one row of one padding place.
    """
    if not bool(layout.vision.any()):
        return _nothing(layout.sample.device)
    places, sizes = layout.vision.flatten().nonzero()[:, 0], layout.sizes()
    rows: list[list[Tensor]] = []
    widest, used = max(sizes, default=0), 0
    for part in places.split(sizes):
        if not rows or used + len(part) > widest:
            rows.append([])
            used = 0
        rows[-1].append(part)
        used += len(part)
    index = torch.full((len(rows), widest), NONE, device=places.device)
    for number, parts in enumerate(rows):
        row = torch.cat(parts)
        index[number, : len(row)] = row
    return index


def alone(layout: Layout) -> Layout:
    """The same tokens with each picture as a sample of its own."""
    return Layout(layout.picture, torch.zeros_like(layout.branch), layout.picture, layout.cell)


def segment_start(layout: Layout) -> Tensor:
    """(row, token): the column at which the token's run of one sample, branch and twig starts."""
    return _run_start(*(part for part in (layout.sample, layout.branch, layout.twig) if part is not None))


def _run_start(*parts: Tensor) -> Tensor:
    """(row, token): the column at which the run of tokens that are alike in all parts starts: a key for sums over such runs."""
    column = torch.arange(parts[0].shape[1], device=parts[0].device).expand_as(parts[0])
    fresh = torch.ones_like(parts[0], dtype=torch.bool)
    fresh[:, 1:] = torch.stack([part[:, 1:] != part[:, :-1] for part in parts]).any(dim=0)
    return torch.where(fresh, column, 0).cummax(dim=1).values


def sum_over_ancestors(layout: Layout, values: Tensor) -> Tensor:
    """(row, token): the sum of `values` over all that the token's run goes on from: its trunk, and its stem if it is in a twig."""
    trunk = _sum_over(_run_start(layout.sample), torch.where(layout.branch == 0, values, 0))
    total = torch.where(layout.branch > 0, trunk, 0)
    if layout.twig is None:
        return total
    stem = _sum_over(_run_start(layout.sample, layout.branch), torch.where(layout.twig == 0, values, 0))
    return total + torch.where(layout.twig > 0, stem, 0)


def _sum_over(slot: Tensor, values: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_add_(1, slot, values).gather(1, slot)


def _moved_together(keep: Tensor) -> Tensor:
    """Flat places of the kept tokens of each row, in order, on the left; rows that keep none are left out."""
    rows, width = keep.shape
    counts = keep.sum(dim=1)
    if not bool(counts.any()):
        return _nothing(keep.device)
    order = torch.argsort((~keep).to(torch.int8), dim=1, stable=True)
    flat = order + torch.arange(rows, device=keep.device)[:, None] * width
    column = torch.arange(width, device=keep.device)
    index = torch.where(column < counts[:, None], flat, NONE)
    return index[counts > 0, : int(counts.max())]


def _nothing(device: torch.device) -> Tensor:
    """One padding place: a batch without pictures still makes its pass, so that every process runs the same modules."""
    return torch.full((1, 1), NONE, device=device)
