"""Branching sequences: who sees whom, and from which position."""

from __future__ import annotations

import pytest
import torch

from theodolite.models.tree import Segment, lay_out

ROW = [Segment((1, 2)), Segment((3,), 0), Segment((4, 5), 1), Segment((6,), 1), Segment((7, 8), 0)]


def test_a_segment_sees_itself_causally_and_its_ancestors_and_nothing_else() -> None:
    visible = lay_out([ROW], pad=0).attention_mask[0, 0] == 0
    sees = {token: {int(key) + 1 for key in torch.nonzero(visible[token - 1])[:, 0]} for token in range(1, 9)}
    assert sees == {1: {1}, 2: {1, 2}, 3: {1, 2, 3}, 4: {1, 2, 3, 4}, 5: {1, 2, 3, 4, 5}, 6: {1, 2, 3, 6}, 7: {1, 2, 7}, 8: {1, 2, 7, 8}}


def test_positions_go_on_from_the_parents_end() -> None:
    layout = lay_out([ROW], pad=0)
    assert layout.position_ids[0].tolist() == [0, 1, 2, 3, 4, 3, 2, 3]
    assert layout.starts == ((0, 2, 3, 5, 6),)


def test_padding_sees_only_itself_and_nothing_sees_it() -> None:
    layout = lay_out([ROW, ROW[:1]], pad=9)
    visible = layout.attention_mask[1, 0] == 0
    assert layout.input_ids[1].tolist() == [1, 2] + [9] * 6
    assert torch.equal(visible[2:], torch.eye(8, dtype=torch.bool)[2:])
    assert not visible[:2, 2:].any()
    assert torch.isfinite(layout.attention_mask).all()


def test_a_segment_before_its_parent_is_refused() -> None:
    with pytest.raises(ValueError, match="segment 0 stands before its parent 1"):
        lay_out([[Segment((1,), 1), Segment((2,))]], pad=0)
