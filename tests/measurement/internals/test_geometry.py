"""Geometry of factors on planted directions, under both inner products, and chance where nothing is planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import linalg

from helpers.measure_contexts import array_context
from theodolite.measurement.internals.directions import (
    Differences,
    Weights,
    connects_all,
    consistency,
    differences,
    draw_weights,
    factor_basis,
    pictures_by_scene,
    place_values,
    span,
)
from theodolite.measurement.internals.geometry import describe, measure_geometry
from theodolite.measurement.internals.hierarchy import measure_hierarchy, other_groupings, squared_cosine
from theodolite.measurement.internals.inner_product import causal_product
from theodolite.measurement.internals.overlap import overlap
from theodolite.measurement.internals.simplex import simplex_parts, simplex_regularity
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.geometry import Shape

VALUES = ("red", "yellow", "blue", "green")
SIMPLEX = np.eye(4)
LINE = np.arange(4.0)[:, None] * np.eye(1, 4)


def planted(
    positions: np.ndarray, num_scenes: int, noise: float, rng: np.random.Generator, factor: str = "colour"
) -> tuple[Interventions, np.ndarray]:
    """Pairs that move a factor between random values of scenes whose own vectors are large, and the vectors of all pictures."""
    number, dim = positions.shape
    before = rng.integers(0, number, num_scenes)
    after = (before + rng.integers(1, number, num_scenes)) % number
    base = 5 * rng.standard_normal((num_scenes, dim))
    eps = noise * rng.standard_normal((2 * num_scenes, dim))
    vectors = np.concatenate([base + positions[before], base + positions[after]]) + eps
    changes = Interventions(
        factor=factor,
        values=VALUES[:number],
        before=np.arange(num_scenes),
        after=np.arange(num_scenes) + num_scenes,
        level_before=before,
        level_after=after,
        scene=np.arange(num_scenes) + 100,
    )
    return changes, vectors


def differences_in(changes: Interventions, vectors: np.ndarray) -> Differences:
    return differences(changes, vectors, np.unique(changes.scene))


def observed(num_scenes: int) -> Weights:
    return Weights(np.ones((1, num_scenes)), 0)


def describe_all(
    factors: Mapping[str, tuple[Interventions, np.ndarray]], seed: int = 0, groups: Mapping[str, tuple[tuple[int, ...], ...]] | None = None
) -> Shape:
    scenes = np.unique(np.concatenate([changes.scene for changes, _ in factors.values()]))
    by_factor = {name: differences(changes, vectors, scenes) for name, (changes, vectors) in factors.items()}
    rng = np.random.default_rng(seed)
    return describe(by_factor, draw_weights(len(scenes), 100, rng), groups or {}, 0.95, rng)


# Consistency


def test_additive_directions_are_perfectly_consistent_whichever_way_the_change_runs() -> None:
    shape = describe_all({"colour": planted(SIMPLEX, 60, 0.0, np.random.default_rng(0))})
    tested = shape.factors["colour"].consistency
    assert tested is not None
    assert tested.estimate.value == pytest.approx(1)
    assert abs(tested.chance) < 0.1
    assert tested.p == pytest.approx(1 / 101) == tested.p_adjusted
    assert shape.factors["colour"].rank == 3


def test_consistency_is_the_mean_cosine_over_pairs_of_different_scenes() -> None:
    rng = np.random.default_rng(1)
    changes, vectors = planted(rng.standard_normal((3, 6)), 40, 0.7, rng)
    changes = replace(changes, scene=changes.scene // 2)  # two pairs a scene: their own products must not count
    pairs = differences_in(changes, vectors)
    moved = vectors[changes.after] - vectors[changes.before]
    means = []
    for low, high in ((0, 1), (0, 2), (1, 2)):
        up = (changes.level_before == low) & (changes.level_after == high)
        down = (changes.level_before == high) & (changes.level_after == low)
        turned = np.concatenate([moved[up], -moved[down]])
        scene = np.concatenate([changes.scene[up], changes.scene[down]])
        unit = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        means.append((unit @ unit.T)[scene[:, None] != scene[None, :]].mean())
    result = consistency(pairs, observed(20))
    assert result is not None and result[0] == pytest.approx(np.mean(means))


def test_a_left_out_group_gives_the_number_of_the_rest() -> None:
    rng = np.random.default_rng(2)
    changes, vectors = planted(SIMPLEX[:3], 40, 0.7, rng)
    weights = draw_weights(40, 5, rng)
    values, placed = consistency(differences_in(changes, vectors), weights), place_values(differences_in(changes, vectors), weights)
    kept = weights.table[3] == 1
    assert 0 < kept.sum() < 40
    changes = changes.take(kept)
    rest, alone = differences_in(changes, vectors), consistency(differences_in(changes, vectors), observed(int(kept.sum())))
    assert values is not None and alone is not None and values[3] == pytest.approx(alone[0])
    np.testing.assert_allclose(placed[3], place_values(rest, observed(int(kept.sum())))[0], atol=1e-12)


def test_without_a_direction_consistency_is_about_0_and_its_p_uniform() -> None:
    rng = np.random.default_rng(3)
    values, chances = [], []
    for seed in range(150):
        tested = describe_all({"colour": planted(np.zeros((3, 8)), 40, 1.0, rng)}, seed).factors["colour"].consistency
        assert tested is not None
        values.append(tested.estimate.value)
        chances.append(tested.p)
    assert abs(np.mean(values)) < 0.01
    assert 0.43 < np.mean(chances) < 0.57
    assert 0.02 < np.mean(np.array(chances) < 0.1) < 0.19


def test_intervals_of_consistency_hold_the_truth() -> None:
    """Truth: |d|^2 / E|d + noise|^2 up to normalising each, estimated from one large sample."""
    rng, positions = np.random.default_rng(4), np.eye(2, 16) * 2
    large = consistency(differences_in(*planted(positions, 20_000, 1.0, rng)), observed(20_000))
    assert large is not None
    hits = 0
    for seed in range(120):
        tested = describe_all({"colour": planted(positions, 50, 1.0, rng)}, seed).factors["colour"].consistency
        assert tested is not None and tested.estimate.low is not None and tested.estimate.high is not None
        hits += tested.estimate.low <= large[0] <= tested.estimate.high
    assert 0.88 <= hits / 120 <= 0.995


def test_what_does_not_move_has_no_direction() -> None:
    changes, vectors = planted(np.zeros((3, 4)), 20, 0.0, np.random.default_rng(0))
    vectors[20:] = vectors[:20]
    shape = describe_all({"colour": (changes, vectors), "shape": planted(SIMPLEX, 20, 0.0, np.random.default_rng(1))})
    still = shape.factors["colour"]
    assert (still.consistency, still.rank, still.simplex, still.num_differences) == (None, 0, None, 20)
    assert shape.overlaps == ()
    one, own = planted(SIMPLEX, 1, 0.0, np.random.default_rng(2))
    assert describe_all({"colour": (one, own)}).factors["colour"].consistency is None


# Subspaces


def test_least_squares_places_the_values_and_the_basis_spans_them() -> None:
    rng = np.random.default_rng(5)
    positions = rng.standard_normal((4, 9))
    changes, vectors = planted(positions, 50, 0.0, rng)
    placed = place_values(differences_in(changes, vectors), observed(50))[0]
    np.testing.assert_allclose(placed, positions - positions.mean(axis=0), atol=1e-10)
    basis = factor_basis(changes, vectors, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ placed.T), placed.T, atol=1e-10)
    first = np.linalg.svd(placed)[2][0]
    assert abs(factor_basis(changes, vectors, 1)[:, 0] @ first) == pytest.approx(1)
    assert factor_basis(*planted(LINE, 50, 0.0, rng)).shape == (4, 1), "values on a line span one direction"


def test_overlap_is_scipy_s_principal_angles() -> None:
    rng = np.random.default_rng(6)
    one, other = rng.standard_normal((1, 4, 12)), rng.standard_normal((1, 3, 12))
    angles = linalg.subspace_angles(one[0].T, other[0].T)
    assert overlap(span(one, 4), span(other, 3))[0] == pytest.approx(np.mean(np.cos(angles) ** 2))


def test_orthogonal_factors_overlap_0_and_equal_ones_1() -> None:
    rng, space = np.random.default_rng(7), linalg.qr(np.random.default_rng(8).standard_normal((12, 12)))[0]
    shape = describe_all(
        {
            "a": planted(SIMPLEX @ space[:4], 60, 0.0, rng),
            "b": planted(SIMPLEX @ space[4:8], 60, 0.0, rng),
            "c": planted(2 * SIMPLEX @ space[:4], 60, 0.0, rng),
        }
    )
    overlaps = {(each.first, each.second): each for each in shape.overlaps}
    assert overlaps["a", "b"].overlap.estimate.value == pytest.approx(0, abs=1e-6)
    assert overlaps["a", "c"].overlap.estimate.value == pytest.approx(1, abs=1e-6)
    assert overlaps["a", "b"].random == pytest.approx(3 / 12)
    assert overlaps["a", "b"].overlap.p == 1


def test_a_shared_direction_within_noise_stands_out_of_the_shuffles() -> None:
    rng, axis = np.random.default_rng(9), np.eye(2, 40) * np.array([[3.0], [0.0]])
    other = np.roll(axis, 1, axis=1)
    shape = describe_all({name: planted(at, 80, 0.5, rng) for name, at in (("a", axis), ("b", axis), ("c", other))})
    overlaps = {(each.first, each.second): each.overlap for each in shape.overlaps}
    assert overlaps["a", "b"].estimate.value > 0.8 and overlaps["a", "b"].p_adjusted < 0.05
    assert overlaps["a", "c"].p > 0.05 and overlaps["a", "c"].estimate.value < 0.2
    assert 1 / 40 < overlaps["a", "b"].chance < 0.2, "shuffled differences keep the sizes of their channels"


# Simplex and hierarchy


def test_a_regular_simplex_is_1_and_a_line_0() -> None:
    rng = np.random.default_rng(10)
    regular = describe_all({"colour": planted(3 * SIMPLEX, 60, 0.0, rng)}).factors["colour"].simplex
    line = describe_all({"colour": planted(LINE, 60, 0.0, rng)}).factors["colour"].simplex
    assert regular is not None and line is not None
    assert regular.regularity is not None and line.regularity is not None and line.signal_frac is not None
    assert regular.regularity.value == pytest.approx(1)
    assert (regular.cosine_gap, regular.norm_spread) == pytest.approx((0, 0), abs=1e-6)
    assert line.regularity.value == pytest.approx(0, abs=1e-6) and line.signal_frac.value == pytest.approx(1)
    assert line.cosine_gap > 0.5 and line.norm_spread > 0.4
    assert describe_all({"colour": planted(SIMPLEX[:2], 60, 0.0, rng)}).factors["colour"].simplex is None


def test_regularity_lies_between_for_a_square_and_is_undefined_for_one_point() -> None:
    square = np.array([[[1.0, 1], [1, -1], [-1, -1], [-1, 1]]])
    regularity = simplex_regularity(np.concatenate([square, 0 * square]))
    assert regularity is not None and regularity[0] == pytest.approx(0.5) and np.isnan(regularity[1])
    cosine_gap, norm_spread = simplex_parts(square[0] @ square[0].T)
    assert cosine_gap == pytest.approx(np.sqrt((4 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / 6)) and norm_spread == pytest.approx(0)


WARM_COLD = ((0, 1), (2, 3))
TWO_LEVELS = np.array([[2.0, 1, 0], [2, -1, 0], [-2, 0, 0.5], [-2, 0, -0.5]])


def test_a_planted_hierarchy_is_orthogonal_across_levels_and_other_groupings_are_not() -> None:
    shape = describe_all({"colour": planted(TWO_LEVELS, 80, 0.0, np.random.default_rng(12))}, groups={"colour": WARM_COLD})
    hierarchy = shape.factors["colour"].hierarchy
    assert hierarchy is not None
    assert hierarchy.group_cos == pytest.approx(0, abs=1e-6)
    assert hierarchy.chance > 0.1 and hierarchy.p == hierarchy.least_p == pytest.approx(1 / 3, abs=1e-6), "three ways to form two pairs"
    skewed = TWO_LEVELS + np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    tilted = describe_all({"colour": planted(skewed, 80, 0.1, np.random.default_rng(12))}, groups={"colour": WARM_COLD})
    other = tilted.factors["colour"].hierarchy
    assert other is not None and other.low is not None and other.group_cos > other.low > 0.05


def test_a_regular_simplex_is_orthogonal_under_every_grouping_and_says_so() -> None:
    gram = (SIMPLEX - 0.25) @ (SIMPLEX - 0.25).T
    products = np.multiply.outer(gram, gram)[None]
    hierarchy = measure_hierarchy(products, WARM_COLD, 0.95)
    assert hierarchy is not None and (hierarchy.group_cos, hierarchy.p, hierarchy.least_p) == (0, 1, round(1 / 3, 6))
    assert measure_hierarchy(products, ((0, 1, 2, 3), ()), 0.95) is None
    assert measure_hierarchy(products, ((0,), (1,)), 0.95) is None
    on_a_line = np.multiply.outer(LINE @ LINE.T, LINE @ LINE.T)
    assert squared_cosine(on_a_line, WARM_COLD) == pytest.approx(1)


def test_there_are_as_many_other_groupings_as_counted() -> None:
    assert len(other_groupings(WARM_COLD)) == 2
    assert len(other_groupings(((0, 1, 2), (3, 4)))) == 9
    assert len(other_groupings(((5, 1), (0, 4), (2, 3)))) == 14


# The causal inner product


def test_the_causal_product_is_the_euclidean_one_where_the_unembedding_is_white() -> None:
    rng = np.random.default_rng(13)
    words = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6))
    words = words - words.mean(axis=0)
    white = words @ np.linalg.inv(np.linalg.cholesky(words.T @ words / 300)).T + 7
    product = causal_product(white)
    x = rng.standard_normal((5, 6))
    np.testing.assert_allclose(product.apply(x) @ product.apply(x).T, x @ x.T, atol=1e-10)
    skewed = causal_product(words)
    covariance = np.cov(words.T, bias=True)
    np.testing.assert_allclose(skewed.apply(x) @ skewed.apply(x).T, x @ covariance @ x.T, atol=1e-10)


def test_the_causal_product_survives_a_change_of_basis_that_keeps_all_logits_and_the_euclidean_does_not() -> None:
    rng = np.random.default_rng(14)
    words, basis = rng.standard_normal((200, 8)) * np.arange(1, 9), rng.standard_normal((8, 8))
    scenes, weights = np.arange(100, 160), draw_weights(60, 20, rng)
    before = {name: planted(rng.standard_normal((3, 8)), 60, 0.5, rng, name) for name in ("a", "b")}
    after = {name: (changes, vectors @ np.linalg.inv(basis)) for name, (changes, vectors) in before.items()}
    np.testing.assert_allclose(after["a"][1] @ (words @ basis.T).T, before["a"][1] @ words.T, atol=1e-8)
    shapes = []
    for unembedding, factors in ((words, before), (words @ basis.T, after)):
        product = causal_product(unembedding)
        euclidean = {name: differences(changes, vectors, scenes) for name, (changes, vectors) in factors.items()}
        causal = {name: each.replaced(product.apply(each.vectors)) for name, each in euclidean.items()}
        shapes.append(tuple(describe(each, weights, {}, 0.95, np.random.default_rng(0)) for each in (causal, euclidean)))
    assert shapes[0][0] == shapes[1][0]
    assert shapes[0][1] != shapes[1][1]


@pytest.mark.parametrize("num_words", [5, 400])
def test_a_singular_unembedding_reads_only_what_it_spans(num_words: int) -> None:
    rng = np.random.default_rng(15)
    words = rng.standard_normal((num_words, 4)) @ np.eye(4, 10)
    product = causal_product(words)
    assert (product.rank, product.num_words, product.width) == (4, num_words, 10)
    x = rng.standard_normal((3, 10))
    covariance = np.cov(words.T, bias=True)
    np.testing.assert_allclose(product.apply(x) @ product.apply(x).T, x @ covariance @ x.T, atol=1e-9)
    np.testing.assert_allclose(product.apply(np.eye(10)[4:]), 0, atol=1e-7)
    with pytest.raises(ValueError, match="at least two words"):
        causal_product(words[:1])


# The measure


def test_pictures_have_the_scene_of_their_pair() -> None:
    level = np.array([0, 1])
    one = Interventions("a", ("x", "y"), np.array([4, 2]), np.array([1, 3]), level, 1 - level, np.array([7, 8]))
    pictures, scenes = pictures_by_scene({"a": one, "b": one})
    assert pictures.tolist() == [1, 2, 3, 4] and scenes.tolist() == [7, 8, 8, 7]
    assert connects_all(differences_in(*planted(SIMPLEX, 60, 0.0, np.random.default_rng(0))))


def test_the_measure_gives_each_site_its_products_and_repeats_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(16)
    changes, vectors = planted(TWO_LEVELS, 30, 0.2, rng)
    activations = SimpleNamespace(sites=("encoder", "connector"), mean=lambda site: vectors.astype(np.float32))
    done: list[tuple[int, int]] = []
    context = array_context(
        interventions={"colour": changes},
        groups={"colour": {"warm": ("red", "yellow"), "cold": ("blue", "green")}},
        activations=activations,
        unembedding=rng.standard_normal((50, 3)).astype(np.float32),
        rng=lambda name: np.random.default_rng(len(name)),
        progress=lambda *at: done.append(at),
    )
    geometry = measure_geometry(context)
    assert geometry is not None
    assert geometry.sites["encoder"].causal is None and geometry.sites["connector"].causal is not None
    colour = geometry.sites["connector"].euclidean.factors["colour"]
    assert colour.hierarchy is not None and colour.hierarchy.group_cos < 0.2
    assert colour.simplex is not None and colour.consistency is not None and colour.consistency.p < 0.01
    again = measure_geometry(context)
    assert again is not None and again.model_dump_json() == geometry.model_dump_json()
    assert done[0] == (0, 2) and done[2] == (2, 2)
    context.unembedding = context.unembedding[:, :2]
    narrow = measure_geometry(context)
    assert narrow is not None and narrow.sites["connector"].causal is None
    monkeypatch.setattr("theodolite.measurement.internals.geometry.MAX_NUMBERS", 24)
    drawn = measure_geometry(context)
    assert drawn is not None and drawn.sites["encoder"].euclidean.factors["colour"].num_differences == 12
    context.interventions = {}
    assert measure_geometry(context) is None
