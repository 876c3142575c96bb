"""Layouts, mixed masks and positions, by hand on small rows."""

from __future__ import annotations

import pytest
import torch

from helpers.laver_batches import layout
from theodolite.models.exported.attention import additive_mask, refuse_dropped_masks, visible
from theodolite.models.exported.grids import token_grid
from theodolite.models.exported.layout import NONE, Layout, alone, layout_of, mark_pictures, pictures_index, prefix_index
from theodolite.models.exported.positions import AxisRotary, axis_of_frequency, axis_positions, order_in_sample


def sees(place: Layout, mixed: bool = True, window: int | None = None) -> list[str]:
    """The first row's sight as a picture: a line a query, # where it sees the key."""
    return ["".join("#" if seen else "." for seen in query) for query in visible(place, mixed, window)[0].tolist()]


def test_mixed_attention_by_hand() -> None:
    assert sees(layout([["tvt"]])) == ["#.....", "#####.", "#####.", "#####.", "#####.", "######"]


def test_pictures_see_earlier_pictures_and_never_later_ones() -> None:
    assert sees(layout([["vtv"]], side=1)) == ["#..", "##.", "###"]
    two = sees(layout([["vv"]]))
    assert two[0] == "####...." and two[4] == "########"


def test_packed_samples_and_padding_are_blind_to_each_other() -> None:
    place = layout([["tv", "vt"], ["t"]], side=1)
    assert sees(place) == ["#...", "##..", "..#.", "..##"]
    padded = visible(place, mixed=True)[1]
    assert padded[0].tolist() == [True, False, False, False]
    assert torch.equal(padded[1:], torch.eye(4, dtype=torch.bool)[1:])


def test_branches_see_their_trunk_and_themselves() -> None:
    assert sees(layout([["vt|tt|t"]], side=1)) == ["#....", "##...", "###..", "####.", "##..#"]


def test_twigs_see_trunk_stem_and_themselves_and_go_on_from_their_stem() -> None:
    place = layout([["v|tt>t>t|t>tt"]], side=1)
    assert sees(place) == ["#.......", "##......", "###.....", "####....", "###.#...", "#....#..", "#....##.", "#....###"]
    assert axis_positions(place, two_d=False)[0, 0].tolist() == [0, 1, 2, 3, 3, 1, 2, 3]
    wide = layout([["tv|t>tt>t"]], side=3)
    assert axis_positions(wide, two_d=True)[0, 0].tolist() == [0] + [1] * 9 + [4, 5, 6, 5]
    assert wide.gather(torch.tensor([[0, 10, 12, -1]])).twig.tolist() == [[0, 0, 1, 0]]


def test_without_mixing_the_mask_is_causal() -> None:
    assert torch.equal(visible(layout([["tvvt"]]), mixed=False)[0], torch.ones(10, 10, dtype=torch.bool).tril())


def test_a_window_counts_positions_in_the_sample_and_never_cuts_a_picture() -> None:
    assert sees(layout([["ttt|t|t"]]), window=2) == ["#....", "##...", ".##..", "..##.", "..#.#"]
    assert sees(layout([["vt"]]), window=2) == ["####.", "####.", "####.", "####.", "...##"]


def test_no_row_of_an_additive_mask_is_empty() -> None:
    mask = additive_mask(layout([["tv"], ["t"]]), True, torch.bfloat16)
    assert mask.shape == (2, 1, 5, 5)
    assert (mask == 0).any(dim=-1).all()
    assert torch.isfinite(mask).all()


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3", "paged_attention", None])
def test_back_ends_that_drop_masks_are_refused_by_name(name: str | None) -> None:
    with pytest.raises(ValueError, match="eager, sdpa, flex_attention"):
        refuse_dropped_masks(name)


def test_positions_count_anew_in_each_sample_and_branches_go_on_from_their_trunk() -> None:
    place = layout([["tvt", "tt|tt|t"], ["t"]], side=1)
    assert order_in_sample(place).tolist() == [[0, 1, 2, 0, 1, 2, 3, 2], [0] * 8]


def test_two_d_positions_by_hand() -> None:
    axes = axis_positions(layout([["tvt|t|t"]]), two_d=True)[:, 0].tolist()
    assert axes == [[0, 1, 1, 1, 1, 3, 4, 4], [0, 1, 1, 2, 2, 3, 4, 4], [0, 1, 2, 1, 2, 3, 4, 4]]


def test_each_picture_starts_behind_the_larger_side_of_the_one_before() -> None:
    place = layout_of(torch.tensor([[9] * 6 + [1] + [9] * 2]), 9, [token_grid(2, 3), token_grid(1, 2)])
    assert axis_positions(place, two_d=True)[:, 0].tolist() == [
        [0] * 6 + [3] + [4] * 2,
        [0, 0, 0, 1, 1, 1, 3, 4, 4],
        [0, 1, 2, 0, 1, 2, 3, 4, 5],
    ]


def test_text_has_the_same_position_on_all_axes_and_counts_tokens() -> None:
    axes = axis_positions(layout([["tttt"], ["tt"]]), two_d=True)
    assert torch.equal(axes[0], axes[1]) and torch.equal(axes[0], axes[2])
    assert axes[0].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]


def test_left_padding_is_no_position() -> None:
    ids = torch.tensor([[0, 0, 9, 9, 3], [3, 9, 9, 4, 5]])
    place = layout_of(ids, 9, [token_grid(1, 2), token_grid(1, 2)], (ids != 0).long())
    assert axis_positions(place, two_d=True)[2].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert place.picture.tolist() == [[NONE, NONE, 0, 0, NONE], [NONE, 1, 1, NONE, NONE]]


def test_too_few_places_for_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="have 4 tokens, but the text has places for 3"):
        mark_pictures(torch.tensor([[True, True, True]]), [token_grid(2, 2)])


def test_the_prefix_ends_with_each_samples_last_picture() -> None:
    place = layout([["tvtt", "t", "vv|tt"], ["tt"], ["vt"]], side=1)
    index = prefix_index(place)
    width = place.sample.shape[1]
    assert index.tolist() == [[0, 1, 5, 6], [2 * width, NONE, NONE, NONE]]
    kept = place.gather(index)
    assert kept.picture.tolist() == [[NONE, 0, 1, 2], [3, NONE, NONE, NONE]]
    assert kept.sample.tolist() == [[0, 0, 2, 2], [4, NONE, NONE, NONE]]


def test_pictures_alone_keep_their_order_and_are_never_cut() -> None:
    ids = torch.tensor([[9] * 2 + [1] + [9] * 4, [9] * 3 + [1] + [9] * 2 + [1]])
    place = layout_of(ids, 9, [token_grid(1, 2), token_grid(2, 2), token_grid(1, 3), token_grid(2, 1)])
    kept = alone(place).gather(pictures_index(place))
    assert kept.picture.tolist() == [[0, 0, NONE, NONE], [1, 1, 1, 1], [2, 2, 2, NONE], [3, 3, NONE, NONE]]
    assert torch.equal(kept.sample, kept.picture)
    assert axis_positions(kept, two_d=True)[2].tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 2, 0], [0, 0, 0, 0]]


def test_small_pictures_share_a_row() -> None:
    place = layout_of(torch.tensor([[9] * 8]), 9, [token_grid(1, 2), token_grid(1, 2), token_grid(2, 2)])
    assert alone(place).gather(pictures_index(place)).picture.tolist() == [[0, 0, 1, 1], [2, 2, 2, 2]]


def rotary() -> AxisRotary:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    return AxisRotary(LlamaRotaryEmbedding(LlamaConfig(hidden_size=64, num_attention_heads=2)))


def score(at: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The attention score of fixed random query and key at two positions."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    cos, sin = rotary()(query, torch.tensor([at, other]).T[:, None])
    turned = [apply_rotary_pos_emb(part, part, cos[:, n : n + 1], sin[:, n : n + 1])[0] for n, part in enumerate((query, key))]
    return float((turned[0] * turned[1]).sum())


def test_two_d_scores_depend_on_row_and_column_differences_only() -> None:
    base = score((0, 1, 2), (0, 4, 3))
    for shift in ((3, 0, 0), (0, 2, 0), (0, 0, 5), (7, 7, 7)):
        moved = [tuple(a + b for a, b in zip(point, shift, strict=True)) for point in ((0, 1, 2), (0, 4, 3))]
        assert score(*moved) == pytest.approx(base, abs=1e-4)
    assert abs(score((0, 1, 2), (0, 5, 3)) - base) > 1e-3
    assert abs(score((0, 1, 2), (0, 4, 4)) - base) > 1e-3


def test_equal_axes_are_the_stock_rotation_to_the_bit() -> None:
    module, x = rotary(), torch.zeros(2, 5, 64)
    positions = torch.arange(5).expand(2, 5)
    stock = module.stock(x, positions)
    for angles in (module(x, positions), module(x, positions.expand(3, 2, 5))):
        assert all(torch.equal(a, b) for a, b in zip(angles, stock, strict=True))


def test_every_axis_gets_fast_and_slow_frequencies_in_turns() -> None:
    assert axis_of_frequency(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
