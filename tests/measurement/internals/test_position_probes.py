"""Probes of all positions at once against one probe after the other, in the wide and the narrow case, and where channels are constant."""

from __future__ import annotations

import numpy as np
import pytest

from theodolite.measurement.internals import position_probes
from theodolite.measurement.internals.position_probes import probe_positions
from theodolite.measurement.internals.probes import PENALTIES, Task, assign_folds, one_hot, probe


def a_task(num_scenes: int, num_levels: int, rng: np.random.Generator) -> Task:
    scenes = np.repeat(np.arange(num_scenes), 2)
    training = scenes % 5 < 3
    levels = rng.integers(num_levels, size=len(scenes))
    return Task(levels, scenes, training, assign_folds(scenes[training], rng), num_levels)


@pytest.mark.parametrize("penalty", PENALTIES[::2])
@pytest.mark.parametrize(("num_scenes", "channels", "num_levels"), [(60, 12, 4), (20, 40, 3), (31, 8, 2)])
def test_every_position_is_probed_as_alone(
    num_scenes: int, channels: int, num_levels: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(num_scenes)
    task = a_task(num_scenes, num_levels, rng)
    tokens = rng.standard_normal((len(task.levels), 9, channels)).astype(np.float32)
    tokens[:, :, :num_levels] += np.linspace(0, 3, 9)[:, None] * one_hot(task.levels, num_levels)[:, None]
    tokens[:, 2, 1] = 4.0  # constant everywhere
    tokens[task.training, 3, 0] = -1.0  # in training alone
    tokens[:, 5] = 0.5  # a position without any signal
    monkeypatch.setattr(position_probes, "MOST_NUMBERS", 4 * tokens[:, 0].size)
    right = probe_positions(tokens, task, penalty)
    assert right.shape == (9, int((~task.training).sum())) and len(np.unique(right.mean(axis=1))) > 2
    for token in range(9):
        np.testing.assert_array_equal(right[token], probe(tokens[:, token], task, (penalty,)).right)
