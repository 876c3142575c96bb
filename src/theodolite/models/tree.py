"""Sequences that branch: what several questions share (a picture, a question) runs once, and no branch sees another.

A segment sees itself causally and its ancestors whole, and its positions go on from its parent's end: its logits are those it would
get in a sequence of its own, made of its ancestors and itself. In an adapted model a picture's tokens, all in the root, may see each
other too, and may have positions by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.models.attention import additive
from theodolite.models.layout import layout_of
from theodolite.models.positions import axis_positions
from theodolite.models.vlm import STOCK, Adaptation


@dataclass(frozen=True)
class Segment:
    """A run of tokens behind its parent (a position in the same row's list, before it); None for the root."""

    tokens: tuple[int, ...]
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """The picture in each row's root: the token that stands for each of its tokens, and their (row, column)."""

    token: int
    cells: Int[Tensor, "token 2"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Branching rows as model inputs, and where each segment of each row starts. The mask is additive: eager and sdpa read it alike.

    `position_ids` are (row, token), or (3, row, token) where positions are by axis.
    """

    input_ids: Int[Tensor, "row token"]
    position_ids: Int[Tensor, "*axis row token"]
    attention_mask: Float[Tensor, "row 1 token token"]
    starts: tuple[tuple[int, ...], ...]

    def inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of a forward pass."""
        return {"input_ids": self.input_ids, "position_ids": self.position_ids, "attention_mask": self.attention_mask}


def lay_out(rows: Sequence[Sequence[Segment]], pad: int, picture: Picture | None = None, adaptation: Adaptation = STOCK) -> Layout:
    """Rows of segments as tensors, padded on the right. An adaptation needs the picture.

    Raises `ValueError` on a segment that stands before its parent, and if not all of the picture, or more, is in a row's root.
    """
    width = max(sum(len(segment.tokens) for segment in row) for row in rows)
    input_ids = torch.full((len(rows), width), pad)
    position_ids = torch.zeros((3, len(rows), width), dtype=torch.long)
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself, so that no row is empty
    starts = []
    for number, row in enumerate(rows):
        tokens = torch.tensor([token for segment in row for token in segment.tokens])
        input_ids[number, : len(tokens)] = tokens
        root = _root_positions(row, picture, adaptation)
        begins, positions = _places(row, root)
        position_ids[:, number, : len(tokens)] = positions
        visible[number, : len(tokens), : len(tokens)] = _visible(row)
        if picture is not None and adaptation.attention == "mixed":
            vision = input_ids[number] == picture.token
            visible[number] |= vision[:, None] & vision[None, :]
        starts.append(begins)
    by_axis = adaptation.positions == "2d"
    return Layout(input_ids, position_ids if by_axis else position_ids[0], additive(visible, torch.float32), tuple(starts))


def _root_positions(row: Sequence[Segment], picture: Picture | None, adaptation: Adaptation) -> Int[Tensor, "3 token"]:
    """Of the root's tokens, on the axes time, row and column; all alike where they only count."""
    root = torch.tensor([row[0].tokens])
    if adaptation.is_stock:
        return torch.arange(root.shape[1]).expand(3, -1)
    if picture is None:
        raise ValueError("an adapted model's rows need their picture: give the token that stands for it, and its cells")
    if any(picture.token in segment.tokens for segment in row[1:]):
        raise ValueError("a segment behind the root holds picture tokens; put the whole picture into the root")
    return axis_positions(layout_of(root, picture.token, [picture.cells]), adaptation.positions == "2d")[:, 0]


def _places(row: Sequence[Segment], root: Int[Tensor, "3 root"]) -> tuple[tuple[int, ...], Int[Tensor, "3 token"]]:
    """Where each segment starts in the row, and the positions of every token."""
    begins, ends, positions = [], [], []
    at = 0
    for number, segment in enumerate(row):
        if segment.parent is not None and segment.parent >= number:
            raise ValueError(f"segment {number} stands before its parent {segment.parent}; put parents first")
        first = 0 if segment.parent is None else ends[segment.parent]
        own = torch.arange(first, first + len(segment.tokens)).expand(3, -1) if number else root
        begins.append(at)
        ends.append(int(own.max()) + 1 if segment.tokens else first)
        positions.append(own)
        at += len(segment.tokens)
    return tuple(begins), torch.cat(positions, dim=1)


def _visible(row: Sequence[Segment]) -> Bool[Tensor, "query key"]:
    """Who sees whom: the own segment and its ancestors, never ahead."""
    sees = torch.eye(len(row), dtype=torch.bool)
    for number, segment in enumerate(row):
        if segment.parent is not None:
            sees[number] |= sees[segment.parent]
    owner = torch.repeat_interleave(torch.arange(len(row)), torch.tensor([len(segment.tokens) for segment in row]))
    return sees[owner][:, owner].tril()
