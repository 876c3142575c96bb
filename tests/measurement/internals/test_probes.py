"""Linear probes: separable levels are decoded, others are at chance, and scenes do not help; the control task finds memorisation."""

from __future__ import annotations

import numpy as np
import pytest

from theodolite.measurement.internals.probes import Folds, Task, assign_folds, factorise, one_hot, probe, standardised
from theodolite.stats.rates import clustered_rate

NUM_LEVELS = 4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_task(num_scenes: int = 300, num_levels: int = NUM_LEVELS, seed: int = 0, levels: np.ndarray | None = None) -> Task:
    """Two samples a scene, three scenes of five for training."""
    scenes = np.repeat(np.arange(num_scenes), 2)
    levels = rng(seed).integers(num_levels, size=len(scenes)) if levels is None else levels
    training = scenes % 5 < 3
    return Task(levels, scenes, training, assign_folds(scenes[training], rng(seed + 1)), num_levels)


# Accuracy


@pytest.mark.parametrize("num_dims", [NUM_LEVELS, 40, 500])
def test_a_separable_factor_is_told_without_fault(num_dims: int) -> None:
    """Also where there are more channels than training samples, which takes the dual."""
    task = a_task()
    directions = rng(2).standard_normal((NUM_LEVELS, num_dims))
    vectors = one_hot(task.levels, NUM_LEVELS) @ directions + 0.05 * rng(3).standard_normal((len(task.levels), num_dims))
    result = probe(vectors, task)
    assert result.accuracy_frac == 1.0 and result.folds_frac == 1.0


def test_levels_in_a_row_along_one_direction_are_told_apart() -> None:
    """Regression of indicators alone would never predict the middle levels."""
    task = a_task(num_levels=6)
    assert probe(task.levels[:, None].astype(float), task).accuracy_frac == 1.0


@pytest.mark.parametrize("num_dims", [1, 2, 30, 500])
def test_an_independent_factor_is_told_at_chance_in_training_folds_too(num_dims: int) -> None:
    task = a_task(500)
    vectors = rng(5).standard_normal((len(task.levels), num_dims))
    result = probe(vectors, task)
    accuracy = clustered_rate(result.right, task.scenes[~task.training], 0.999)
    assert accuracy.low is not None and accuracy.high is not None and accuracy.low < 1 / NUM_LEVELS < accuracy.high
    assert result.folds_frac < 1 / NUM_LEVELS + 0.1


def test_a_nuisance_unique_to_the_scene_does_not_help() -> None:
    """One level a scene, and vectors that encode the scene: a split by rows would decode every level."""
    num_scenes = 300
    levels = np.repeat(rng(7).integers(NUM_LEVELS, size=num_scenes), 2)
    task = a_task(num_scenes, levels=levels)
    result = probe(one_hot(task.scenes, num_scenes), task)
    assert abs(result.accuracy_frac - 1 / NUM_LEVELS) < 0.12 and result.folds_frac < 0.4


def test_accuracy_of_two_overlapping_levels_is_that_of_the_best_rule() -> None:
    """Two Gaussians 2 apart: the best possible rule has 84.1 %."""
    task = a_task(2000, num_levels=2)
    vectors = rng(10).standard_normal((len(task.levels), 5))
    vectors[:, 2] += 2 * task.levels
    assert probe(vectors, task).accuracy_frac == pytest.approx(0.8413, abs=0.03)


def test_a_probe_repeats() -> None:
    task, vectors = a_task(), rng(1).standard_normal((600, 20))
    one, other = (probe(vectors, task) for _ in range(2))
    assert np.array_equal(one.right, other.right) and one.penalty == other.penalty and one.control is None


def test_shifting_and_scaling_channels_changes_nothing() -> None:
    task, vectors = a_task(), rng(1).standard_normal((600, 20))
    moved = vectors * np.linspace(1, 100, 20) + 7
    assert np.array_equal(probe(vectors, task).right, probe(moved, task).right)


def test_channels_that_do_not_vary_are_left_out_and_nothing_is_chance() -> None:
    task = a_task()
    inner, outer = standardised(np.ones((5, 3)), np.zeros((2, 3)))
    assert inner.shape == (5, 0) and outer.shape == (2, 0)
    result = probe(np.ones((600, 3)), task)
    assert abs(result.accuracy_frac - 1 / NUM_LEVELS) < 0.1


def test_a_level_that_training_never_saw_is_never_said() -> None:
    task = a_task()
    levels = np.where(task.training & (task.levels == 3), 0, task.levels)
    result = probe(one_hot(task.levels, NUM_LEVELS), Task(levels, task.scenes, task.training, task.folds, NUM_LEVELS))
    assert result.right[levels[~task.training] == 3].sum() == 0


# Closed forms


@pytest.mark.parametrize("num_dims", [6, 90])
def test_left_out_predictions_are_those_of_a_fit_without_the_fold(num_dims: int) -> None:
    scenes = np.repeat(np.arange(30), 2)
    folds = assign_folds(scenes, rng(1), 5)
    train, test = rng(2).standard_normal((60, num_dims)), rng(3).standard_normal((8, num_dims))
    targets = rng(4).standard_normal((60, 3))
    fitted = Folds(factorise(train, test), folds, (0.01, 1.0))
    inner, outer = standardised(train, test)

    def ridge(rows: np.ndarray, penalty: float) -> np.ndarray:
        part = inner[rows]
        return np.linalg.solve(part.T @ part + penalty * num_dims * np.eye(num_dims), part.T @ targets[rows])

    for number, penalty in enumerate((0.01, 1.0)):
        for fold in range(5):
            expected = inner[folds == fold] @ ridge(folds != fold, penalty)
            assert fitted.left_out(targets)[number][folds == fold] == pytest.approx(expected, abs=1e-6)
        assert fitted.held_out(targets, number) == pytest.approx(outer @ ridge(np.ones(60, dtype=bool), penalty), abs=1e-6)


def test_folds_are_whole_scenes_of_even_number() -> None:
    scenes = rng(1).integers(23, size=200)
    folds = assign_folds(scenes, rng(2), 5)
    by_scene = [np.unique(folds[scenes == scene]) for scene in range(23)]
    assert all(len(folds) == 1 for folds in by_scene)
    assert sorted(np.bincount(np.concatenate(by_scene))) == [4, 4, 5, 5, 5]


def test_chance_is_the_commonest_level_of_the_held_out_samples() -> None:
    scenes, levels = np.arange(10), np.array([0, 1, 0, 1, 2, 2, 2, 0, 1, 2])
    training = scenes < 5
    task = Task(levels, scenes, training, assign_folds(scenes[training], rng()), 3)
    assert task.chance_frac == 3 / 5 and task.can_be_probed
    assert not Task(np.zeros(10, dtype=int), scenes, training, task.folds, 3).can_be_probed
    assert not Task(levels, np.where(training, scenes, 9), training, task.folds, 3).can_be_probed
