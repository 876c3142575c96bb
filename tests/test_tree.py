"""Branching sequences: who sees whom, and from which position."""

from __future__ import annotations

import pytest
import torch

from theodolite.models.grids import grid
from theodolite.models.tree import Picture, Segment, lay_out
from theodolite.models.vlm import Adaptation

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


# A picture of 1 x 3 tokens in the root, then two questions, the first with a choice.
SEEN = [Segment((1, 9, 9, 9)), Segment((2, 3), 0), Segment((4,), 1), Segment((5,), 0)]
PICTURE = Picture(9, grid(1, 3))


def test_a_pictures_tokens_see_each_other_in_an_adapted_model() -> None:
    layout = lay_out([SEEN], 0, PICTURE, Adaptation("mixed", "native"))
    visible = layout.attention_mask[0, 0] == 0
    assert visible[:4, :4].tolist() == [[True] + [False] * 3, *[[True] * 4] * 3]
    stock = lay_out([SEEN], 0).attention_mask[0, 0] == 0
    assert torch.equal(visible[4:], stock[4:]) and not visible[:4, 4:].any()
    assert layout.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 4]


def test_positions_by_axis_go_on_behind_the_pictures_larger_side() -> None:
    layout = lay_out([SEEN, SEEN[:1]], 0, PICTURE, Adaptation("native", "2d"))
    assert layout.position_ids[:, 0].tolist() == [[0, 1, 1, 1, 4, 5, 6, 4], [0, 1, 1, 1, 4, 5, 6, 4], [0, 1, 2, 3, 4, 5, 6, 4]]
    assert layout.position_ids[:, 1, 4:].sum() == 0
    assert torch.equal(layout.attention_mask, lay_out([SEEN, SEEN[:1]], 0).attention_mask)
    tall = lay_out([[Segment((9, 9)), Segment((2,), 0)]], 0, Picture(9, grid(2, 1)), Adaptation("native", "2d"))
    assert tall.position_ids[:, 0].tolist() == [[0, 0, 2], [0, 1, 2], [0, 0, 2]]


def test_pictures_that_are_missing_cut_or_elsewhere_are_refused() -> None:
    mixed = Adaptation("mixed", "2d")
    with pytest.raises(ValueError, match="need their picture"):
        lay_out([SEEN], 0, None, mixed)
    with pytest.raises(ValueError, match="the pictures have 3 tokens, but the text has places for 2"):
        lay_out([[Segment((9, 9))]], 0, PICTURE, mixed)
    with pytest.raises(ValueError, match="put the whole picture into the root"):
        lay_out([[*SEEN, Segment((9,), 0)]], 0, PICTURE, mixed)
