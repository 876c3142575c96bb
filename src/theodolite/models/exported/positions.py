"""Positions: one integer a token, or three (time, row, column) as in M-RoPE, and the rotary module that takes three.

2D-RoPE (LaVer, arXiv 2512.06281) in the form of M-RoPE (Qwen2-VL, arXiv 2409.12191): a text token has the same position on all axes,
a picture's tokens have the position at which it starts, plus their row and column; the next token starts after the larger side. This
file is copied beside exported models, so it imports only torch and its neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .layout import Layout, segment_start, sum_over_ancestors


def axis_positions(layout: Layout, two_d: bool) -> Tensor:
    """(3, row, token): positions on the axes time, row and column, from 0 in each sample; a branch continues its trunk, a twig its stem.

    Without `two_d` all axes count tokens. 0 at padding.
    """
    advance = torch.ones_like(layout.sample)
    offset = torch.zeros_like(layout.cell)
    if two_d:
        ends = layout.vision.clone()
        ends[:, :-1] &= layout.picture[:, :-1] != layout.picture[:, 1:]
        advance = torch.where(layout.vision, torch.where(ends, _extents(layout), 0), advance)
        offset = layout.cell
    before = advance.cumsum(dim=1) - advance
    begin = before - before.gather(1, segment_start(layout))
    begin = begin + sum_over_ancestors(layout, advance)
    axes = torch.stack([begin, begin + offset[..., 0], begin + offset[..., 1]])
    return torch.where(layout.real, axes, 0)


def order_in_sample(layout: Layout) -> Tensor:
    """(row, token): the number of tokens before a token in its sample, counting its own branch and twig and not the others."""
    return axis_positions(layout, two_d=False)[0]


def _extents(layout: Layout) -> Tensor:
    """(row, token): the larger side of the token's picture, in cells.

    Without indexing by a boolean mask, for which the host would wait.
    """
    # Pictures are numbered from 0, so there are at most as many as tokens; text adds to one more, which no vision token reads.
    picture = torch.where(layout.vision, layout.picture, layout.picture.numel()).flatten()
    sides = (layout.cell.amax(dim=-1) + 1).flatten()
    extents = torch.zeros(len(picture) + 1, dtype=torch.long, device=sides.device).scatter_reduce_(0, picture, sides, "amax")
    return extents[picture].view_as(layout.picture)


def axis_of_frequency(num_frequencies: int, device: Any = None) -> Tensor:
    """(frequency): the axis of each rotary frequency, 0 time, 1 row, 2 column, in turns, so that every axis has fast and slow ones.

    Qwen2-VL gives each axis a run of adjacent frequencies, the columns the slowest; at the head widths of small models their angles
    hardly change across a picture. Qwen3-VL interleaves the axes too, up to its sections: at its default [24, 20, 20] the last four of 64
    frequencies are time's, where here they go on in turns, so that two of them (61 and 62) are row's and column's.
    """
    return torch.arange(num_frequencies, device=device) % 3


class AxisRotary(nn.Module):
    """A rotary module for positions (row, token), bitwise as the wrapped module, or (3, row, token), with axes interleaved by frequency."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if position_ids.ndim == 2:
            return self.stock(x, position_ids, *args, **kwargs)
        by_axis = [self.stock(x, positions, *args, **kwargs) for positions in position_ids]
        # Each frequency occurs twice, once for each half of a head's channels.
        axis = axis_of_frequency(by_axis[0][0].shape[-1] // 2, x.device).repeat(2)
        cos, sin = (torch.where(axis == 0, three[0], torch.where(axis == 1, three[1], three[2])) for three in zip(*by_axis, strict=True))
        return cos, sin


def refuse_interleaved(cos: Tensor, name: str) -> None:
    """Raises `ValueError` for rotary angles (row, token, channel) whose halves differ: a rotated pair of channels would get two axes."""
    half = cos.shape[-1] // 2
    if not torch.equal(cos[..., :half], cos[..., half:]):
        raise ValueError(f"{name} does not repeat its frequencies in halves, so 2D-RoPE cannot assign them to axes; keep native positions")
