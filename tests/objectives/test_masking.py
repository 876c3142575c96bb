"""Masks of vision tokens: how many, which, and that they are the same wherever they are drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from theodolite.objectives.masking import draw_ranks, masked_tokens
from theodolite.records.errors import BadInput


def masks(size: int, ratio: float, pictures: int = 1, seed: int = 0) -> Tensor:
    """Masks of many pictures of one size (picture, token)."""
    drawn = [draw_ranks(size, seed, f"sample {number}", 0, 0) for number in range(pictures)]
    rank = torch.from_numpy(np.stack([rank for rank, _ in drawn]))
    dither = torch.tensor([dither for _, dither in drawn])[:, None].expand(rank.shape)
    return masked_tokens(rank, torch.full(rank.shape, size), dither, ratio)


def test_ranks_are_a_permutation_and_the_dither_is_below_one() -> None:
    for size in (0, 1, 2, 64, 729):
        rank, dither = draw_ranks(size, 3, "a", 0, 0)
        assert sorted(rank.tolist()) == list(range(size)) and 0 <= dither < 1
        assert float(np.float32(dither)) == dither


def test_the_draw_is_reproducible_and_depends_on_everything_it_names() -> None:
    keys = [
        (0, "a", 0, 0),
        (1, "a", 0, 0),
        (0, "b", 0, 0),
        (0, "a", 1, 0),
        (0, "a", 0, 1),
        (0, "a", 1, 10),
        (0, "a", 11, 0),
        (0, "a, 1", 1, 0),
    ]
    drawn = {key: draw_ranks(64, *key) for key in keys}
    assert len({(tuple(rank), dither) for rank, dither in drawn.values()}) == len(keys)
    assert len({dither for _, dither in drawn.values()}) == len(keys)
    for key in reversed(keys):
        rank, dither = draw_ranks(64, *key)
        assert np.array_equal(rank, drawn[key][0]) and dither == drawn[key][1]


def test_the_draw_is_the_same_on_every_machine_and_in_every_process() -> None:
    """The values of this very draw are fixed: a change of them changes every run."""
    rank, dither = draw_ranks(8, 0, "α", 2, 1)
    assert (rank.tolist(), dither) == ([2, 1, 3, 0, 4, 7, 6, 5], 9113455 / 2**24)


def test_ranks_and_dithers_are_uniform() -> None:
    drawn = [draw_ranks(5, 0, str(number), 0, 0) for number in range(4000)]
    place = np.stack([np.bincount([rank[token] for rank, _ in drawn], minlength=5) for token in range(5)])
    assert np.abs(place / 4000 - 0.2).max() < 0.03
    dithers = np.array([dither for _, dither in drawn])
    assert np.abs(np.histogram(dithers, 10, (0, 1))[0] / 4000 - 0.1).max() < 0.02
    assert abs(np.corrcoef(dithers, [rank[0] for rank, _ in drawn])[0, 1]) < 0.05


@pytest.mark.parametrize(("size", "ratio"), [(64, 0.05), (64, 0.001), (7, 0.3), (49, 0.5), (1, 0.05)])
def test_a_picture_has_the_ratio_in_expectation_and_one_of_two_neighbouring_counts(size: int, ratio: float) -> None:
    counts = masks(size, ratio, pictures=4000).sum(1)
    wanted = ratio * size
    assert set(counts.tolist()) <= {int(wanted), int(wanted) + 1}
    spread = (wanted % 1 * (1 - wanted % 1) / 4000) ** 0.5
    assert counts.double().mean().item() == pytest.approx(wanted, abs=4 * spread + 1e-9)


def test_the_expected_count_over_all_dithers_is_exact() -> None:
    dither = torch.arange(1000, dtype=torch.float64)[:, None].expand(1000, 64) / 1000
    rank = torch.randperm(64, generator=torch.Generator().manual_seed(0)).expand(1000, 64)
    assert masked_tokens(rank, torch.full((1000, 64), 64), dither, 0.05).sum() == 3200


def test_a_larger_ratio_masks_the_same_tokens_and_more() -> None:
    ratios = [0.0, 0.01, 0.05, 0.3, 0.31, 0.9, 1.0]
    found = [masks(49, ratio, pictures=50) for ratio in ratios]
    for less, more in pairwise(found):
        assert not (less & ~more).any() and less.sum() < more.sum()


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_ratio_0_masks_none_and_ratio_1_all_for_any_dither(size: int) -> None:
    highest = 1 - 2**-24
    for dither in (0.0, 0.5, highest):
        rank, sizes, dithers = torch.arange(size), torch.full((size,), size), torch.full((size,), dither)
        assert not masked_tokens(rank, sizes, dithers, 0.0).any()
        assert masked_tokens(rank, sizes, dithers, 1.0).all()


def test_a_dither_just_below_one_does_not_round_a_whole_number_up() -> None:
    """2048.99999994 is 2049 in single precision."""
    rank, sizes = torch.arange(4096), torch.full((4096,), 4096)
    assert masked_tokens(rank, sizes, torch.full((4096,), 1 - 2**-24), 0.5).sum() == 2048


def test_what_is_no_vision_token_is_never_masked() -> None:
    rank = torch.tensor([[-1, 0, 1, -1], [2, 0, 1, -1]])
    size = torch.tensor([[0, 2, 2, 0], [3, 3, 3, 0]])
    found = masked_tokens(rank, size, torch.full((2, 4), 0.9), 1.0)
    assert torch.equal(found, rank >= 0)
    # By token, so that pictures of one row keep their own sizes and dithers: 0.5 * 2 + 0 and 0.5 * 3 + 0.5.
    halves = masked_tokens(rank, size, torch.tensor([[0.0] * 4, [0.5] * 4]), 0.5)
    assert halves.tolist() == [[False, True, False, False], [False, True, True, False]]


@pytest.mark.parametrize("ratio", [-0.1, 1.01, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(BadInput, match="mask ratio"):
        masked_tokens(torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long), torch.zeros(1), ratio)
    with pytest.raises(ValueError, match="-1 tokens"):
        draw_ranks(-1, 0, "a", 0, 0)
