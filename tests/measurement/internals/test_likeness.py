"""Likeness of vision tokens: the closed form against all pairs, RankMe against the paper's formula, and averages by scene."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.measure_contexts import array_context
from theodolite.measurement.internals.likeness import average, measure_likeness
from theodolite.measurement.internals.token_similarity import effective_rank, mean_pairwise_cosine
from theodolite.measurement.pairs.interventions import Interventions


def draw(picture: int, token: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(picture, token, dim, generator=torch.Generator().manual_seed(seed))


def test_mean_cosine_is_the_mean_over_all_pairs_of_different_tokens() -> None:
    tokens = draw(3, 7, 5) + 1
    expected = []
    for one in tokens.double():
        unit = one / one.norm(dim=1, keepdim=True)
        expected.append((unit @ unit.T)[~torch.eye(7, dtype=torch.bool)].mean())
    torch.testing.assert_close(mean_pairwise_cosine(tokens), torch.stack(expected).float())


def test_equal_tokens_have_cosine_1_opposite_ones_minus_1_and_a_single_one_has_none() -> None:
    one = draw(2, 1, 6)
    assert mean_pairwise_cosine(one.expand(2, 9, 6)) == pytest.approx(1)
    assert mean_pairwise_cosine(torch.cat([one, -one], dim=1)) == pytest.approx(-1)
    assert mean_pairwise_cosine(one).isnan().all()
    assert mean_pairwise_cosine(one.half().expand(2, 9, 6)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("token", "dim"), [(12, 5), (5, 12)])
def test_effective_rank_is_the_paper_s_formula(token: int, dim: int) -> None:
    tokens = draw(4, token, dim)
    expected = []
    for one in tokens.double():
        values = torch.linalg.svdvals(one)
        share = values / values.abs().sum() + 1e-7
        expected.append(torch.exp(-(share * share.log()).sum()))
    torch.testing.assert_close(effective_rank(tokens), torch.stack(expected).float())


def test_effective_rank_counts_equal_directions() -> None:
    basis = torch.linalg.qr(draw(1, 64, 64)[0])[0]
    for rank in (1, 3, 20):
        assert effective_rank(basis[None, :rank]) == pytest.approx(rank, rel=1e-4)
        mixed = torch.linalg.qr(draw(1, 200, rank, 1)[0])[0] @ basis[:rank]
        assert effective_rank(7 * mixed[None]) == pytest.approx(rank, rel=1e-3), "rounding of 200 tokens must not pass for rank"
    assert effective_rank(torch.zeros(2, 4, 3)).isnan().all()
    assert effective_rank(torch.zeros(0, 4, 3)).shape == (0,)


def test_an_average_leaves_out_what_is_missing_and_counts_scenes() -> None:
    values = np.array([0.5, np.nan, 0.7, 0.9, 0.9], dtype=np.float32)
    mean = average(values, np.array([3, 3, 4, 4, 9]), 0.95, (-1.0, 1.0))
    assert mean is not None and (mean.value, mean.num_scenes) == (0.75, 3)
    assert average(np.full(3, np.nan), np.arange(3), 0.95) is None
    alone = average(values[:1], np.array([1]), 0.95)
    assert alone is not None and alone.low is None


def test_likeness_is_of_the_pictures_that_interventions_use() -> None:
    levels = np.zeros(2, dtype=int)
    change = Interventions("a", ("x", "y"), np.array([0, 2]), np.array([1, 3]), levels, levels + 1, np.array([0, 1]))
    other = Interventions("b", ("x", "y"), np.array([0]), np.array([5]), levels[:1], levels[:1] + 1, np.array([0]))
    cosine = np.array([0.1, 0.1, 0.3, 0.3, 99, 0.7], dtype=np.float32)
    activations = SimpleNamespace(sites=("encoder",), likeness=lambda site: cosine, rank=lambda site: cosine * 10)
    likeness = measure_likeness(array_context({"a": change, "b": other}, activations))
    assert likeness is not None
    site = likeness.sites["encoder"]
    assert site.cosine is not None and site.rank is not None
    assert (site.num_pictures, site.cosine.num_scenes) == (5, 2)
    assert (site.cosine.value, site.rank.value) == pytest.approx((0.3, 3))
    assert measure_likeness(array_context({}, activations)) is None
