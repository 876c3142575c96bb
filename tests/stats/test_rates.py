"""Rates clustered by scene: closed forms, what duplicates must not do, and how often the intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helpers.unchecked import without_checks
from theodolite.records.part import Estimate, Rate
from theodolite.stats import rates
from theodolite.stats.rates import (
    benjamini_hochberg,
    bootstrap,
    clustered_mean,
    clustered_rate,
    difference_p,
    exact_interval,
    paired_difference,
    partition,
    permutation_p,
    total_variation,
)


def rate(values: list[float] | np.ndarray, scenes: list[int] | np.ndarray, confidence: float = 0.95) -> Rate:
    return clustered_rate(np.asarray(values, dtype=float), np.asarray(scenes), confidence)


def ends(found: Rate | Estimate) -> tuple[float, float]:
    assert found.low is not None and found.high is not None
    return found.low, found.high


# Closed forms


@pytest.mark.parametrize(("hits", "num_rows"), [(0, 1), (0, 20), (7, 20), (20, 20), (199, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_at_whole_sample_sizes_the_exact_interval_is_scipy_s(hits: int, num_rows: int, confidence: float) -> None:
    expected = stats.binomtest(hits, num_rows).proportion_ci(confidence, method="exact")
    assert exact_interval(hits / num_rows, float(num_rows), confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("num_scenes", [2, 5, 200])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_at_0_and_1_the_scenes_are_the_sample(value: float, num_scenes: int) -> None:
    expected = stats.binomtest(int(value) * num_scenes, num_scenes).proportion_ci(0.95, method="exact")
    for repeats in (1, 4):
        found = rate(np.full(num_scenes * repeats, value), np.repeat(np.arange(num_scenes), repeats))
        assert ends(found) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert found.frac == value and (found.num_pairs, found.num_scenes) == (num_scenes * repeats, num_scenes)


@pytest.mark.parametrize(("hits", "num_rows"), [(1, 10), (5, 10), (30, 100), (999, 1000)])
def test_one_row_a_scene_is_clopper_pearson_at_the_size_that_n_minus_1_and_student_leave(hits: int, num_rows: int) -> None:
    """Variance f (1 - f) / (n - 1) gives size n - 1; Student's quantile at n - 1 degrees for the normal's takes a little more."""
    values = np.arange(num_rows) < hits
    found = rate(values, np.arange(num_rows))
    size = (num_rows - 1) * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, num_rows - 1)) ** 2
    frac = hits / num_rows
    expected = (stats.beta.ppf(0.025, frac * size, size * (1 - frac) + 1), stats.beta.ppf(0.975, frac * size + 1, size * (1 - frac)))
    assert (found.frac, *ends(found)) == pytest.approx((frac, *expected))
    plain = stats.binomtest(hits, num_rows).proportion_ci(0.95, method="exact")
    low, high = ends(found)
    assert low < plain.low and plain.high < high
    assert num_rows < 100 or high - low < 1.03 * (plain.high - plain.low)


def test_a_higher_confidence_is_a_wider_interval() -> None:
    values, scenes = np.arange(60) % 3 == 0, np.arange(60) // 2
    found = [ends(rate(values, scenes, confidence)) for confidence in (0.8, 0.95, 0.99)]
    assert found[2][0] < found[1][0] < found[0][0] < 1 / 3 < found[0][1] < found[1][1] < found[2][1]


def test_total_variation_of_known_distributions() -> None:
    before = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [0.6, 0.4, 0]])
    after = np.array([[0, 0, 1], [0.5, 0.5, 0], [0.5, 0.3, 0.2], [0.4, 0.5, 0.1]])
    assert total_variation(before, after) == pytest.approx(np.array([1, 0, 0.3, 0.2]))
    assert total_variation(after, before) == pytest.approx(total_variation(before, after))


# Scenes are the units of independence


def test_rows_repeated_within_their_scenes_change_nothing_but_their_count() -> None:
    values, scenes = drawn(0.3, 0.7, np.full(25, 3), np.random.default_rng(0))
    once = rate(values, scenes)
    for repeats in (2, 10):
        more = rate(np.repeat(values, repeats), np.repeat(scenes, repeats))
        assert (more.frac, *ends(more)) == pytest.approx((once.frac, *ends(once)))
        assert (more.num_pairs, more.num_scenes) == (75 * repeats, 25)
    low, high = ends(rate(np.repeat(values, 4), np.arange(300)))  # as scenes of their own they would
    assert high - low < 0.6 * (ends(once)[1] - ends(once)[0])


def test_rows_that_move_together_count_as_one_scene_each() -> None:
    together = rate(np.repeat(np.arange(40) % 2, 5), np.repeat(np.arange(40), 5))
    assert ends(together) == pytest.approx(ends(rate(np.arange(40) % 2, np.arange(40))))


def test_names_and_order_of_scenes_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, scenes, order = (rng.random(60) < 0.4).astype(float), rng.integers(0, 15, 60), rng.permutation(60)
    found = rate(values, scenes)
    renamed = rate(values[order], (1000 - 7 * scenes)[order])
    assert (found.frac, *ends(found)) == pytest.approx((renamed.frac, *ends(renamed)))


def test_one_scene_has_a_rate_but_no_ends() -> None:
    found = rate([0, 1, 1, 1], [3, 3, 3, 3])
    assert found == Rate(frac=0.75, low=None, high=None, num_pairs=4, num_scenes=1)


def test_a_sample_is_never_larger_than_its_rows() -> None:
    """Rows of a scene that always differ say little about how they differ: 100 scenes of a 0 and a 1, one of two 1."""
    values = np.tile([0.0, 1.0], 100)
    values[0] = 1
    low, high = ends(rate(values, np.arange(200) // 2))
    assert (low, high) == pytest.approx(exact_interval(0.505, 200.0, 0.95))


def test_few_scenes_of_several_hits_do_not_pass_for_a_known_variance() -> None:
    """Two scenes of 100 have 3 hits of 4 rows: hits come by scene, so no more is known than from 100 scenes that agree in themselves."""
    values = np.zeros((100, 4))
    values[:2, :3] = 1
    low, high = ends(rate(values.ravel(), np.repeat(np.arange(100), 4)))
    student = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 99)) ** 2
    assert (low, high) == pytest.approx(exact_interval(0.015, 100 * student, 0.95), rel=0.05) and high > 0.05


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        rate([], np.array([], dtype=int))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(12),
        np.ones(12),
        np.full(12, 0.3),
        np.tile([0.0, 1.0], 6),  # every scene has one of each: no two scenes differ
        np.array([1.0] + [0.0] * 11),
        np.full(12, 0.3) + 1e-9 * np.arange(12),
    ],
)
def test_no_interval_has_zero_width_or_leaves_0_to_1(values: np.ndarray) -> None:
    found = rate(values, np.arange(12) // 2)
    low, high = ends(found)
    assert 0 <= low <= found.frac <= high <= 1 and high - low > 0.1


# How often the truth is inside

NUM_DRAWS = 400


def drawn(truth: float, alike: float, rows_a_scene: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows that each follow their scene's own coin with chance `alike`, else toss one of their own."""
    scenes = np.repeat(np.arange(len(rows_a_scene)), rows_a_scene)
    of_scene = (rng.random(len(rows_a_scene)) < truth)[scenes]
    return np.where(rng.random(len(scenes)) < alike, of_scene, rng.random(len(scenes)) < truth).astype(float), scenes


@pytest.mark.parametrize(
    ("truth", "alike", "num_scenes", "most_rows"),
    [(0.3, 0.7, 40, 4), (0.5, 1.0, 25, 6), (0.05, 0.5, 60, 3), (0.95, 0.9, 30, 5), (0.2, 0, 30, 1)],
)
def test_95_percent_intervals_hold_the_truth_of_clustered_rows(truth: float, alike: float, num_scenes: int, most_rows: int) -> None:
    rng = np.random.default_rng([21, num_scenes])
    inside, naive = 0, 0
    for _ in range(NUM_DRAWS):
        values, scenes = drawn(truth, alike, rng.integers(1, most_rows + 1, num_scenes), rng)
        low, high = ends(rate(values, scenes))
        inside += low <= truth <= high
        low, high = exact_interval(float(values.mean()), float(len(values)), 0.95)
        naive += low <= truth <= high
    assert inside >= 0.93 * NUM_DRAWS
    assert alike < 0.6 or naive < 0.92 * NUM_DRAWS  # so the test would see it if rows were taken for scenes


def test_intervals_are_no_wider_than_they_need_be() -> None:
    """At 200 scenes the width is that of the normal theory of scene means, within a tenth."""
    rng = np.random.default_rng(22)
    values, scenes = drawn(0.4, 0.5, np.full(200, 4), rng)
    low, high = ends(rate(values, scenes))
    means = values.reshape(200, 4).mean(axis=1)
    assert high - low == pytest.approx(2 * 1.96 * means.std(ddof=1) / np.sqrt(200), rel=0.1)


# Means of real values, and differences


def test_the_partition_numbers_scenes_in_their_order() -> None:
    found = partition(np.array([30, 7, 30, 12, 7]))
    assert found.num_scenes == 3 and found.member.tolist() == [2, 0, 2, 1, 0]
    assert found.totals(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).tolist() == [7, 4, 4]


def test_one_row_a_scene_is_student_s_interval() -> None:
    values = np.random.default_rng(2).normal(3, 2, 17)
    found = clustered_mean(values, np.arange(17), 0.9)
    expected = stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.9)
    assert (found.value, *ends(found)) == pytest.approx((values.mean(), interval.low, interval.high))
    assert difference_p(values, np.arange(17)) == pytest.approx(expected.pvalue)


def test_rows_repeated_within_their_scenes_leave_mean_and_p_alone() -> None:
    values, scenes = np.random.default_rng(3).normal(0.3, 1, 20), np.arange(20)
    again, of = np.repeat(values, 7), np.repeat(scenes, 7)
    once, more = clustered_mean(values, scenes), clustered_mean(again, of)
    assert ends(more) == pytest.approx(ends(once)) and more.num_scenes == 20
    assert difference_p(again, of) == pytest.approx(difference_p(values, scenes))


def test_one_scene_has_a_mean_but_no_ends_no_p_and_no_number_to_need() -> None:
    values, scenes = np.array([0.2, 0.9, 0.4]), np.zeros(3, dtype=int)
    bare = Estimate(value=0.5, low=None, high=None, num_scenes=1)
    assert clustered_mean(values, scenes) == clustered_mean(values, scenes, bounds=(0.0, 1.0)) == bare
    assert paired_difference(np.zeros(3), values, scenes) == bare
    assert bootstrap(np.mean, [values], scenes, np.random.default_rng(0)) == bare
    assert difference_p(values, scenes) is None


@pytest.mark.parametrize("values", [np.zeros(12), np.full(12, 0.3), np.tile([0.1, 0.2, -0.3], 4)])
def test_where_no_scene_differs_nothing_is_made_up(values: np.ndarray) -> None:
    scenes = np.arange(12) // 3
    found = clustered_mean(values, scenes)
    assert found.low is None and found.high is None and found.num_scenes == 4
    flat = bootstrap(lambda drawn: float(drawn.max()), [np.ones(12)], scenes, np.random.default_rng(0))
    assert flat == Estimate(value=1.0, low=None, high=None, num_scenes=4)


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.3, 1.0])
def test_bounds_say_how_far_a_scene_that_was_not_seen_could_be(value: float) -> None:
    """Of 20 scenes none differed, so by the exact binomial at most a share u of all do, each no further than the bound."""
    found = clustered_mean(np.full(20, value), np.arange(20), 0.95, (-1.0, 1.0))
    unseen = stats.binomtest(0, 20).proportion_ci(0.95, method="exact").high
    low, high = ends(found)
    assert (low, high) == pytest.approx((value - unseen * (value + 1), value + unseen * (1 - value)))
    assert -1 <= low <= value <= high <= 1 and high - low > 0.1


def test_bounds_cut_student_s_ends_and_from_0_up_a_mean_is_a_rate() -> None:
    values = np.array([1.0] * 9 + [0.0])
    free, cut = clustered_mean(values, np.arange(10)), clustered_mean(values, np.arange(10), bounds=(-1.0, 1.0))
    assert ends(free)[1] > 1 and ends(cut) == (ends(free)[0], 1.0)
    assert ends(clustered_mean(values, np.arange(10), bounds=(0.0, 1.0))) == ends(rate(values, np.arange(10)))
    assert ends(clustered_mean(3 * values, np.arange(10), bounds=(0.0, 3.0))) == pytest.approx(
        tuple(3 * e for e in ends(rate(values, np.arange(10))))
    )


def test_rare_changes_one_way_have_the_ends_of_their_rate_and_of_no_changes_the_other_way() -> None:
    """5 of 100 scenes go up and none down: the upper end is that of 5 in 100, the lower allows for unseen decreases."""
    changes = (np.arange(100) < 5).astype(float)
    found = paired_difference(np.zeros(100), changes, np.arange(100), 0.95, (-1.0, 1.0))
    up, down = ends(rate(changes, np.arange(100))), ends(rate(np.zeros(100), np.arange(100)))
    assert ends(found) == pytest.approx((0.05 - np.hypot(0.05 - up[0], down[1]), up[1]))
    back = paired_difference(changes, np.zeros(100), np.arange(100), 0.95, (-1.0, 1.0))
    assert ends(back) == pytest.approx((-ends(found)[1], -ends(found)[0]))


def test_differences_of_real_values_have_nearly_student_s_ends() -> None:
    values, scenes = np.random.default_rng(8).normal(0.02, 0.1, 200), np.arange(200)
    found, student = paired_difference(np.zeros(200), values, scenes, 0.95, (-1.0, 1.0)), clustered_mean(values, scenes)
    assert ends(found) == pytest.approx(ends(student), abs=0.001)


def test_a_difference_is_of_the_second_less_the_first_and_pairs_drop_out() -> None:
    rng = np.random.default_rng(4)
    hard, scenes = rng.normal(0, 5, 80), np.arange(80) // 2
    one, other = hard + rng.normal(0, 0.1, 80), hard + 1 + rng.normal(0, 0.1, 80)
    found = paired_difference(one, other, scenes)
    low, high = ends(found)
    assert found.value == pytest.approx(1, abs=0.05) and high - low < 0.1
    assert paired_difference(other, one, scenes).value == -found.value


def test_p_of_differences_that_never_vary() -> None:
    assert difference_p(np.zeros(10), np.arange(10)) == 1
    expected = stats.binomtest(10, 10).pvalue  # the sign test: all ten on one side
    assert difference_p(np.ones(10), np.arange(10)) == difference_p(-np.ones(10), np.arange(10)) == pytest.approx(expected)


# Multiple tests and permutations


def test_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.04, 0.01, 0.03, 0.5])
    assert benjamini_hochberg(p) == pytest.approx(np.array([0.16 / 3, 0.04, 0.16 / 3, 0.5]))
    assert benjamini_hochberg(p[:1]) == pytest.approx(p[:1]) and len(benjamini_hochberg(p[:0])) == 0


def test_few_of_what_benjamini_hochberg_rejects_is_false() -> None:
    """100 tests of which 20 have an effect: at 0.1, at most a tenth of those rejected are false on average, and most effects are found."""
    rng, false, found = np.random.default_rng(5), [], []
    for _ in range(200):
        p = 2 * stats.norm.sf(np.abs(rng.normal(np.where(np.arange(100) < 20, 3.5, 0))))
        rejected = benjamini_hochberg(p) <= 0.1
        false.append(rejected[20:].sum() / max(rejected.sum(), 1))
        found.append(rejected[:20].mean())
    assert np.mean(false) < 0.1 and np.mean(found) > 0.75


def test_permutation_p_counts_the_observed_arrangement() -> None:
    null = np.arange(99.0)
    assert permutation_p(1000.0, null) == 0.01 and permutation_p(98.0, null) == 0.02 and permutation_p(-1.0, null) == 1


# The bootstrap


def ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum())


def test_a_bootstrap_keeps_rows_of_a_scene_and_arrays_together() -> None:
    scenes = np.array([5, 2, 5, 9, 2, 2])
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def note(drawn: np.ndarray, squares: np.ndarray) -> float:
        seen.append((drawn, squares))
        return float(drawn.mean())

    bootstrap(note, [scenes, scenes[:, None] ** 2], scenes, np.random.default_rng(7), 50)
    sizes = {2: 3, 5: 2, 9: 1}
    for drawn, squares in seen[1:]:
        assert (squares[:, 0] == drawn**2).all()
        numbers = {scene: (drawn == scene).sum() for scene in sizes}
        assert all(number % sizes[scene] == 0 for scene, number in numbers.items())
        assert sum(number // sizes[scene] for scene, number in numbers.items()) == 3
    assert len({tuple(drawn) for drawn, _ in seen}) > 5


def test_a_bootstrap_repeats_with_its_generator_and_leaves_out_what_is_not_finite() -> None:
    rng = np.random.default_rng(8)
    values, scenes = rng.normal(0, 1, 60), np.arange(60) // 3
    found = [bootstrap(np.mean, [values], scenes, np.random.default_rng(seed), 200) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    rare = np.where(scenes == 4, 1.0, 0.0)  # a third of the samples lack scene 4
    lost = bootstrap(lambda one: float(1 / one.sum()) if one.any() else float("nan"), [rare], scenes, np.random.default_rng(1), 200)
    assert lost.low is None and lost.value == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="finite"):
        bootstrap(lambda one: float("nan"), [values], scenes, np.random.default_rng(1))


# How often 90 % intervals hold the truth: between 85 and 97 of 100

HELD = (0.85, 0.97)
UNCHECKED = without_checks(rates)


@pytest.mark.parametrize("num_scenes", [6, 30])
def test_90_percent_intervals_of_means_hold_the_truth_of_clustered_rows(num_scenes: int) -> None:
    rng, inside = np.random.default_rng([31, num_scenes]), []
    for _ in range(NUM_DRAWS):
        scenes = np.repeat(np.arange(num_scenes), rng.integers(2, 5, num_scenes))
        values = 1 + rng.normal(0, 1, num_scenes)[scenes] + rng.normal(0, 0.5, len(scenes))
        low, high = ends(UNCHECKED.clustered_mean(values, scenes, 0.9))
        inside.append(low <= 1 <= high)
    assert HELD[0] <= np.mean(inside) <= HELD[1]


@pytest.mark.parametrize("num_scenes", [10, 30])
def test_90_percent_intervals_of_the_bootstrap_hold_the_truth_of_clustered_rows(num_scenes: int) -> None:
    """A ratio of sums, 0.5 in truth, whose parts vary by scene."""
    rng, inside = np.random.default_rng([32, num_scenes]), []
    for _ in range(300):
        scenes = np.repeat(np.arange(num_scenes), rng.integers(1, 5, num_scenes))
        whole = 1 + rng.random(num_scenes)[scenes] + rng.random(len(scenes))
        part = whole * (0.5 + rng.normal(0, 0.1, num_scenes)[scenes] + rng.normal(0, 0.05, len(scenes)))
        low, high = ends(UNCHECKED.bootstrap(ratio, [part, whole], scenes, rng, 250, 0.9))
        inside.append(low <= 0.5 <= high)
    assert HELD[0] <= np.mean(inside) <= HELD[1]


@pytest.mark.parametrize(("before", "after", "alike"), [(0.5, 0.7, 0.8), (0.3, 0.3, 0.5), (0.9, 0.8, 0.0)])
def test_90_percent_intervals_of_paired_rates_hold_the_true_difference(before: float, after: float, alike: float) -> None:
    """In either survey a row follows its scene's one number with chance `alike`, so rows of a scene and both sides of a pair are alike."""
    rng, inside, p = np.random.default_rng([33, int(10 * before)]), [], []
    for _ in range(NUM_DRAWS):
        scenes = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        of_scene = rng.random(40)[scenes]
        numbers = [np.where(rng.random(len(scenes)) < alike, of_scene, rng.random(len(scenes))) for _ in range(2)]
        one, other = (numbers[0] < before).astype(float), (numbers[1] < after).astype(float)
        low, high = ends(UNCHECKED.paired_difference(one, other, scenes, 0.9, (-1.0, 1.0)))
        inside.append(low <= after - before <= high)
        p.append(UNCHECKED.difference_p(other - one - (after - before), scenes))
    assert HELD[0] <= np.mean(inside) <= HELD[1]
    assert 0.05 <= np.mean(np.array(p, dtype=float) < 0.1) <= 0.15
