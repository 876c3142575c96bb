"""The control task: its labels repeat across the split, so that a probe that memorises the other factors decodes them."""

from __future__ import annotations

import numpy as np
import pytest

from theodolite.measurement.internals.control_task import REPEATED_FRAC, draw_control
from theodolite.measurement.internals.ladder import HeldOutSamples, decode_single, rung
from theodolite.measurement.internals.probes import Task, assign_folds, one_hot, probe
from theodolite.records.ladder import LadderThresholds, Rung

NUM_LEVELS, SIZES = 4, (4, 5, 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene_factors(num_scenes: int = 400, seed: int = 0) -> tuple[Task, dict[str, np.ndarray]]:
    """Two pictures a scene that differ in one factor of four levels; three other factors are drawn by scene."""
    scenes = np.repeat(np.arange(num_scenes), 2)
    others = {name: np.repeat(rng(seed + 9 + size).integers(size, size=num_scenes), 2) for name, size in zip("abc", SIZES, strict=True)}
    levels = rng(seed).integers(NUM_LEVELS, size=len(scenes))
    training = scenes % 5 < 3
    task = Task(levels, scenes, training, assign_folds(scenes[training], rng(seed + 1)), NUM_LEVELS)
    return task, others


def controlled(task: Task, others: dict[str, np.ndarray], num_draws: int = 3) -> Task:
    control = draw_control(others, task.levels, task.training, task.num_levels, rng(5), num_draws)
    assert control is not None
    return Task(task.levels, task.scenes, task.training, task.folds, task.num_levels, control)


def a_rung(vectors: np.ndarray, task: Task) -> Rung:
    step = decode_single("layer.1", vectors, task)
    assert step is not None
    return rung(step, None, HeldOutSamples(task.scenes[~task.training], task.chance_frac, LadderThresholds()))


def test_a_probe_that_can_memorise_the_other_factors_loses_its_selectivity() -> None:
    """One channel for each combination of the others, beside the factor: the control is as easy as the factor itself."""
    task, others = scene_factors()
    task = controlled(task, others)
    assert task.control is not None
    combination = one_hot(task.control.combination, task.control.num_combinations)
    vectors = np.concatenate([one_hot(task.levels, NUM_LEVELS), combination], axis=1)
    record = a_rung(vectors, task)
    assert record.control is not None and record.selectivity is not None and record.selectivity.high is not None
    assert record.accuracy.frac == 1 and record.control.frac > 0.95
    assert record.selectivity.high < 0.1, "accuracy less chance would be 0.75"


def test_a_linearly_encoded_factor_keeps_its_selectivity_though_the_others_are_encoded_too() -> None:
    """Each factor in channels of its own: a random function of combinations is not linear in them."""
    task, others = scene_factors()
    task = controlled(task, others, num_draws=20)
    parts = [one_hot(task.levels, NUM_LEVELS), *(one_hot(others[name], size) for name, size in zip("abc", SIZES, strict=True))]
    record = a_rung(np.concatenate(parts, axis=1), task)
    assert record.control is not None and record.selectivity is not None and record.selectivity.low is not None
    assert record.accuracy.frac == 1 and record.control.frac < 0.6 and record.selectivity.low > 0.4
    alone = a_rung(one_hot(task.levels, NUM_LEVELS), task)
    assert alone.control is not None and abs(alone.control.frac - 1 / NUM_LEVELS) < 0.1, "without the others: chance"


def test_labels_are_a_function_of_the_combination_alone_and_repeat_across_the_split() -> None:
    task, others = scene_factors()
    control = controlled(task, others).control
    assert control is not None and set(control.factors) == set("abc") and control.num_combinations == 60
    keys = np.stack([others[name] for name in "abc"], axis=1)
    for labels in control.labels:
        for key in np.unique(keys, axis=0):
            assert len(np.unique(labels[(keys == key).all(axis=1)])) == 1
        assert len(np.unique(labels)) == NUM_LEVELS
    assert not np.array_equal(control.labels[0], control.labels[1])
    assert control.repeated(task.training).mean() >= REPEATED_FRAC


def test_labels_have_the_shares_of_the_levels() -> None:
    task, others = scene_factors()
    levels = np.where(rng(3).random(len(task.levels)) < 0.75, 0, 1)
    control = draw_control(others, levels, task.training, 2, rng(1))
    assert control is not None
    assert np.mean(control.table == 0) == pytest.approx(0.75, abs=0.05)


def test_with_few_scenes_only_as_many_factors_are_combined_as_repeat() -> None:
    task, others = scene_factors(60)
    control = draw_control(others, task.levels, task.training, 2, rng(1))
    assert control is not None and len(control.factors) == 2 and control.num_combinations in (12, 15, 19)
    assert control.repeated(task.training).mean() >= REPEATED_FRAC


@pytest.mark.parametrize("known", ["", "a"])
def test_where_the_other_factors_are_unknown_there_is_no_control_rather_than_chance(known: str) -> None:
    """A function of a single other factor would be linear wherever that factor is: no control either."""
    task, others = scene_factors()
    others = {name: values if name in known else np.where(task.scenes == 7, -1, values) for name, values in others.items()}
    assert draw_control(others, task.levels, task.training, NUM_LEVELS, rng()) is None
    assert probe(one_hot(task.levels, NUM_LEVELS), task).control is None
    record = a_rung(one_hot(task.levels, NUM_LEVELS), task)
    assert record.control is None and record.selectivity is None and record.accuracy.frac == 1


def test_pictures_whose_combination_training_lacks_are_not_counted() -> None:
    task, others = scene_factors()
    only = (others["a"] == 0) & (others["b"] == 0)
    task = Task(task.levels, task.scenes, task.training & ~only, task.folds[~only[task.training]], NUM_LEVELS)
    task = controlled(task, others)
    record = a_rung(rng(2).standard_normal((len(task.levels), 6)), task)
    assert record.control is not None and record.selectivity is not None
    assert record.control.num_pairs == int((~task.training & ~only).sum()) < record.accuracy.num_pairs
