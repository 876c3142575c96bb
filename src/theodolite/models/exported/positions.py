"""Positions: one number a token, or three (time, row, column) as in M-RoPE, and the rotary module that turns three into angles.

2D-RoPE (LaVer, arXiv 2512.06281) in the form of M-RoPE (Qwen2-VL, arXiv 2409.12191): a text token has the same number on all axes,
a picture's tokens have the number at which it starts, plus their row and column; what follows starts behind the larger side. This
file goes with exported models, so it imports nothing but torch and its neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .layout import Layout, segment_start, sum_over_ancestors


def axis_positions(layout: Layout, two_d: bool) -> Tensor:
    """(3, row, token): positions on the axes time, row and column, counted anew in each sample; a branch goes on from its trunk's end, a
    twig from its stem's.

    Without `two_d` all axes count tokens. 0 at padding.
    """
    advance = torch.ones_like(layout.sample)
    offset = torch.zeros_like(layout.cell)
    if two_d:
        ends = layout.vision.clone()
        ends[:, :-1] &= layout.picture[:, :-1] != layout.picture[:, 1:]
        advance = torch.where(layout.vision, 0, advance)
        advance[ends] = _extents(layout)[layout.picture[ends]]
        offset = layout.cell
    before = advance.cumsum(dim=1) - advance
    begin = before - before.gather(1, segment_start(layout))
    begin = begin + sum_over_ancestors(layout, advance)
    axes = torch.stack([begin, begin + offset[..., 0], begin + offset[..., 1]])
    return torch.where(layout.real, axes, 0)


def order_in_sample(layout: Layout) -> Tensor:
    """(row, token): how many tokens of its own sample a token can come after."""
    return axis_positions(layout, two_d=False)[0]


def _extents(layout: Layout) -> Tensor:
    """(picture): the larger side of each picture's grid."""
    sides = layout.cell.amax(dim=-1)[layout.vision] + 1
    pictures = layout.picture[layout.vision]
    extents = torch.zeros(int(pictures.max()) + 1 if len(pictures) else 0, dtype=torch.long, device=sides.device)
    return extents.scatter_reduce_(0, pictures, sides, "amax")


def axis_of_frequency(num_frequencies: int) -> Tensor:
    """(frequency): the axis that turns it, 0 time, 1 row, 2 column, in turns, so that every axis has fast and slow ones.

    Qwen2-VL gives each axis a run of neighbouring frequencies, which leaves the columns the slowest; at the head widths of small models
    they hardly turn at all across a picture. Qwen3-VL deals them out in turns, and so do we.
    """
    return torch.arange(num_frequencies) % 3


class AxisRotary(nn.Module):
    """A rotary module that takes positions (row, token) as the one it wraps does, to the bit, and (3, row, token) by axis.

    The frequencies are dealt out among the axes in turns.
    """

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if position_ids.ndim == 2:
            return self.stock(x, position_ids, *args, **kwargs)
        turned = [self.stock(x, positions, *args, **kwargs) for positions in position_ids]
        # Angles stand twice, once for each half of a head's channels.
        axis = axis_of_frequency(turned[0][0].shape[-1] // 2).repeat(2).to(x.device)
        cos, sin = (torch.where(axis == 0, pair[0], torch.where(axis == 1, pair[1], pair[2])) for pair in zip(*turned, strict=True))
        return cos, sin


def refuse_interleaved(cos: Tensor, name: str) -> None:
    """Raises `ValueError` for rotary angles (row, token, channel) that do not repeat in halves: a pair of channels would get two axes."""
    half = cos.shape[-1] // 2
    if not torch.equal(cos[..., :half], cos[..., half:]):
        raise ValueError(
            f"{name} does not repeat its frequencies in halves, so 2D-RoPE cannot deal them out among axes; keep native positions"
        )
