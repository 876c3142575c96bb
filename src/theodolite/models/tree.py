"""Sequences that branch: what several questions share (a picture, a question) runs once, and no branch sees another.

A segment sees itself causally and its ancestors whole, and its positions go on from its parent's end: its logits are those it would
get in a sequence of its own, made of its ancestors and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A run of tokens behind its parent (a position in the same row's list, before it); None for the root."""

    tokens: tuple[int, ...]
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """Branching rows as model inputs, and where each segment of each row starts. The mask is additive: eager and sdpa read it alike."""

    input_ids: Int[Tensor, "row token"]
    position_ids: Int[Tensor, "row token"]
    attention_mask: Float[Tensor, "row 1 token token"]
    starts: tuple[tuple[int, ...], ...]

    def inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of a forward pass."""
        return {"input_ids": self.input_ids, "position_ids": self.position_ids, "attention_mask": self.attention_mask}


def lay_out(rows: Sequence[Sequence[Segment]], pad: int) -> Layout:
    """Rows of segments as tensors, padded on the right. Raises `ValueError` on a segment that stands before its parent."""
    width = max(sum(len(segment.tokens) for segment in row) for row in rows)
    input_ids = torch.full((len(rows), width), pad)
    position_ids = torch.zeros((len(rows), width), dtype=torch.long)
    visible = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself, so that no row is empty
    starts = []
    for number, row in enumerate(rows):
        tokens = torch.tensor([token for segment in row for token in segment.tokens])
        input_ids[number, : len(tokens)] = tokens
        begins, positions = _places(row)
        position_ids[number, : len(tokens)] = positions
        visible[number, : len(tokens), : len(tokens)] = _visible(row)
        starts.append(begins)
    mask = torch.zeros(visible.shape, dtype=torch.float32).masked_fill(~visible, torch.finfo(torch.float32).min)
    return Layout(input_ids, position_ids, mask[:, None], tuple(starts))


def _places(row: Sequence[Segment]) -> tuple[tuple[int, ...], Int[Tensor, " token"]]:
    """Where each segment starts in the row, and the position of every token."""
    begins, ends, positions = [], [], []
    at = 0
    for number, segment in enumerate(row):
        if segment.parent is not None and segment.parent >= number:
            raise ValueError(f"segment {number} stands before its parent {segment.parent}; put parents first")
        first = 0 if segment.parent is None else ends[segment.parent]
        begins.append(at)
        ends.append(first + len(segment.tokens))
        positions.append(torch.arange(first, ends[-1]))
        at += len(segment.tokens)
    return tuple(begins), torch.cat(positions)


def _visible(row: Sequence[Segment]) -> Bool[Tensor, "query key"]:
    """Who sees whom: the own segment and its ancestors, never ahead."""
    sees = torch.eye(len(row), dtype=torch.bool)
    for number, segment in enumerate(row):
        if segment.parent is not None:
            sees[number] |= sees[segment.parent]
    owner = torch.repeat_interleave(torch.arange(len(row)), torch.tensor([len(segment.tokens) for segment in row]))
    return sees[owner][:, owner].tril()
