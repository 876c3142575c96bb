"""Products across quarters of scenes: lines, simplexes, levels and angles under noise that the plug-in numbers take for structure."""

from __future__ import annotations

import numpy as np
import pytest

from measurement.internals.test_geometry import LINE, SIMPLEX, TWO_LEVELS, WARM_COLD, differences_in, planted
from theodolite.measurement.internals.directions import Differences, Weights, draw_weights, place_values
from theodolite.measurement.internals.geometry import describe
from theodolite.measurement.internals.hierarchy import squared_cosine
from theodolite.measurement.internals.overlap import ORTHOGONAL_BOUND, judge_overlap
from theodolite.measurement.internals.simplex import split_regularity
from theodolite.measurement.internals.split_products import joins_all, split_products
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.geometry import Equivalence, Overlap, Shape, Simplex

SQUARE = np.array([[1.0, 1], [1, -1], [-1, -1], [-1, 1]])


def shape_of(
    factors: dict[str, Differences], num_scenes: int, seed: int, groups: dict[str, tuple[tuple[int, ...], ...]] | None = None
) -> Shape:
    rng = np.random.default_rng(seed)
    return describe(factors, draw_weights(num_scenes, 20, rng), groups or {}, 0.95, rng)


def noisy(positions: np.ndarray, dim: int, step_over_noise: float, num_scenes: int, seed: int) -> Differences:
    """Values in the first of `dim` channels; the noise of a picture is 1 / `step_over_noise` long."""
    wide = np.pad(positions, ((0, 0), (0, dim - positions.shape[1])))
    noise = 1 / step_over_noise / dim**0.5
    return differences_in(*planted(wide, num_scenes, noise, np.random.default_rng(seed)))


def simplex_of(pairs: Differences, num_scenes: int, seed: int = 0) -> Simplex:
    simplex = shape_of({"colour": pairs}, num_scenes, seed).factors["colour"].simplex
    assert simplex is not None and simplex.plug_in is not None
    return simplex


@pytest.mark.parametrize(("dim", "num_scenes"), [(512, 60), (3584, 40)])
@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_values_on_a_line_are_not_regular_however_wide_the_noise(dim: int, num_scenes: int, ratio: float) -> None:
    simplex = simplex_of(noisy(LINE, dim, ratio, num_scenes, 0), num_scenes)
    assert simplex.regularity is not None and simplex.regularity.low is not None
    assert simplex.plug_in > (0.7 if ratio == 0.1 else 0.15), "noise in the products is regular"
    assert simplex.regularity.value < 0.15 and simplex.regularity.low == 0


@pytest.mark.parametrize(("positions", "truth"), [(LINE, 0.0), (SQUARE, 0.5), (SIMPLEX, 1.0)])
def test_regularity_is_unbiased_and_its_interval_holds_the_truth(positions: np.ndarray, truth: float) -> None:
    values, hits = [], 0
    for seed in range(40):
        pairs = noisy(positions, 512, 0.3, 60, seed)
        replicates = split_regularity(
            split_products({"a": pairs}, draw_weights(60, 0, np.random.default_rng(seed)), np.random.default_rng(seed)).factors["a"]
        )
        assert replicates is not None
        values.append(replicates[0])
        regularity = simplex_of(pairs, 60, seed).regularity
        assert regularity is not None and regularity.low is not None and regularity.high is not None
        hits += regularity.low <= truth <= regularity.high
    assert abs(np.mean(values) - truth) < 0.03 and hits >= 36


def test_noise_alone_has_no_regularity_and_says_so() -> None:
    simplex = simplex_of(noisy(np.zeros((4, 4)), 500, 1.0, 200, 11), 200)
    assert simplex.plug_in > 0.9 and simplex.regularity is None
    assert simplex.signal_frac is not None and simplex.signal_frac.low == 0


def test_products_have_no_bias_and_the_plug_in_has() -> None:
    truth = (SIMPLEX - 0.25) @ (SIMPLEX - 0.25).T
    grams, plain = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pairs = noisy(SIMPLEX, 200, 0.3, 40, seed)
        weights = draw_weights(40, 0, rng)
        grams.append(split_products({"a": pairs}, weights, rng).factors["a"].gram[0])
        placed = place_values(pairs, Weights(np.ones((1, 40)), 0))[0]
        plain.append(placed @ placed.T)
    assert np.abs(np.mean(grams, axis=0) - truth).max() < 0.05
    assert np.trace(np.mean(plain, axis=0)) > np.trace(truth) + 0.5


# Levels


def test_noise_is_not_orthogonal_across_levels() -> None:
    """The levels' vectors have a cosine; noise lengthens them and the plug-in cosine falls."""
    tilted = TWO_LEVELS + np.array([[2.0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 0, 0]])
    gram = (tilted - tilted.mean(axis=0)) @ (tilted - tilted.mean(axis=0)).T
    truth = squared_cosine(np.multiply.outer(gram, gram), WARM_COLD)
    pairs = noisy(tilted, 1024, 0.1, 100, 0)
    placed = place_values(pairs, Weights(np.ones((1, 100)), 0))[0]
    plug_in = squared_cosine(np.multiply.outer(placed @ placed.T, placed @ placed.T), WARM_COLD)
    hierarchy = shape_of({"colour": pairs}, 100, 0, {"colour": WARM_COLD}).factors["colour"].hierarchy
    assert truth is not None and plug_in is not None and hierarchy is not None
    assert plug_in**0.5 < truth**0.5 - 0.1 and hierarchy.group_cos == pytest.approx(truth**0.5, abs=0.06)
    assert hierarchy.low is not None and hierarchy.high is not None and hierarchy.low < truth**0.5 < hierarchy.high
    nothing = noisy(np.zeros((4, 4)), 500, 1.0, 100, 4)
    assert shape_of({"colour": nothing}, 100, 0, {"colour": WARM_COLD}).factors["colour"].hierarchy is None


# Angles between factors


def at_angle(cosine: float, noise: float, num_scenes: int, seed: int, dim: int = 256) -> Overlap:
    """Two factors of two values at this angle; both start from one base picture, whose noise their differences share."""
    rng = np.random.default_rng(seed)
    directions = np.zeros((2, dim))
    directions[0, 0], directions[1, :2] = 1, (cosine, (1 - cosine**2) ** 0.5)
    level = rng.integers(0, 2, (2, num_scenes))
    scale = noise / dim**0.5
    base = rng.standard_normal((num_scenes, dim)) + level.T @ directions
    sides = [base + (1 - 2 * level[at])[:, None] * directions[at] + scale * rng.standard_normal(base.shape) for at in (0, 1)]
    vectors = np.concatenate([base + scale * rng.standard_normal(base.shape), *sides])
    own = np.arange(num_scenes)
    factors = {
        name: differences_in(Interventions(name, ("a", "b"), own, own + num_scenes * (1 + at), level[at], 1 - level[at], own), vectors)
        for at, name in enumerate(("one", "other"))
    }
    return shape_of(factors, num_scenes, seed).overlaps[0]


def equivalence(cosine: float, noise: float, num_scenes: int, seed: int = 0) -> Equivalence:
    found = at_angle(cosine, noise, num_scenes, seed).equivalence
    assert found is not None and found.bound == ORTHOGONAL_BOUND
    return found


def test_orthogonal_overlapping_and_undecided_are_three_findings() -> None:
    apart, near, unclear = equivalence(0.0, 1.0, 80), equivalence(0.6, 1.0, 80), equivalence(ORTHOGONAL_BOUND**0.5, 6.0, 80)
    assert (apart.finding, near.finding, unclear.finding) == ("orthogonal", "overlapping", "undecided")
    assert apart.upper is not None and apart.upper < ORTHOGONAL_BOUND
    assert near.estimate is not None and near.estimate.value == pytest.approx(0.36, abs=0.05)


def test_few_noisy_scenes_are_undecided_although_p_is_high() -> None:
    """Orthogonality cannot be concluded from a test that finds nothing."""
    found = at_angle(0.3, 8.0, 16, 1)
    assert found.overlap.p > 0.05 and found.equivalence is not None and found.equivalence.finding == "undecided"
    nothing = judge_overlap(np.full(11, 0.01), False, 10, 0.95)
    assert (nothing.finding, nothing.estimate, nothing.upper) == ("undecided", None, None)


def test_at_the_bound_orthogonality_is_concluded_as_seldom_as_stated() -> None:
    findings = [equivalence(ORTHOGONAL_BOUND**0.5, 3.0, 60, seed).finding for seed in range(60)]
    assert findings.count("orthogonal") <= 6 and findings.count("overlapping") <= 6


def test_noise_hides_an_overlap_from_the_plug_in_number_alone() -> None:
    plain, split = [], []
    for seed in range(20):
        found = at_angle(0.8, 8.0, 60, seed)
        plain.append(found.overlap.estimate.value)
        if found.equivalence is not None and found.equivalence.estimate is not None:
            split.append(found.equivalence.estimate.value)
    assert len(split) >= 15 and np.mean(plain) < 0.45 and np.mean(split) == pytest.approx(0.64, abs=0.12)


def test_quarters_that_do_not_join_all_values_give_no_number() -> None:
    changes, vectors = planted(SIMPLEX, 8, 0.1, np.random.default_rng(0))
    pairs = differences_in(changes, vectors)
    table = np.zeros((2, 8))
    table[0], table[1, 0] = 1, 1
    assert joins_all(pairs, table).tolist() == [True, False]
    products = split_products({"a": pairs}, draw_weights(8, 0, np.random.default_rng(0)), np.random.default_rng(0)).factors["a"]
    assert np.isnan(products.gram).all() and shape_of({"colour": pairs}, 8, 0).factors["colour"].simplex is None
