"""Rates clustered by scene: closed forms, what duplicates must not do, and how often the intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from theodolite.measurement.stats import clustered_rate, exact_interval, total_variation
from theodolite.records.survey import Rate


def rate(values: list[float] | np.ndarray, scenes: list[int] | np.ndarray, confidence: float = 0.95) -> Rate:
    return clustered_rate(np.asarray(values, dtype=float), np.asarray(scenes), confidence)


def ends(found: Rate) -> tuple[float, float]:
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
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.arange(25), 3)
    values = (rng.random(75) < 0.3).astype(float)
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
