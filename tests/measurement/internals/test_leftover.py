"""Probes after erasure: they find what it has left, and nothing where nothing is left."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theodolite.measurement.internals.erasing import Eraser, ErasureFit, paired_labels
from theodolite.measurement.internals.leftover import erase_vectors, probe_erased
from theodolite.measurement.internals.probes import Task, assign_folds, one_hot
from theodolite.records.causal import ErasedProbe

NUM_LEVELS = 2


def pairs(num_scenes: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels of the pictures before, of those after, and noise vectors of both, in this order."""
    rng = np.random.default_rng(seed)
    before = rng.integers(NUM_LEVELS, size=num_scenes)
    return before, 1 - before, rng.standard_normal((2 * num_scenes, dim))


def fitted(vectors: np.ndarray, before: np.ndarray, after: np.ndarray, keep: np.ndarray, shrinkage: bool = True) -> Eraser:
    """The eraser of the pairs of a mask."""
    tokens = torch.from_numpy(vectors).float()[torch.from_numpy(np.tile(keep, 2))][:, None]
    fit = ErasureFit([paired_labels(before[keep], after[keep], NUM_LEVELS)], shrinkage)
    fit.update(tokens, torch.arange(len(tokens)))
    return fit.erasers()[0]


def probed(vectors: np.ndarray, before: np.ndarray, after: np.ndarray, num_fit: int) -> ErasedProbe:
    """With an eraser fitted on so many training scenes; 60 % of scenes train the probes."""
    scenes = np.arange(len(before))
    training = np.tile(scenes % 5 < 3, 2)
    folds = assign_folds(np.tile(scenes, 2)[training], np.random.default_rng(1))
    task = Task(np.concatenate([before, after]), np.tile(scenes, 2), training, folds, NUM_LEVELS)
    keep = (scenes % 5 < 3) & (np.cumsum(scenes % 5 < 3) <= num_fit)
    return probe_erased(fitted(vectors, before, after, keep), vectors, task, 0.95)


def lows(record: ErasedProbe) -> tuple[float, float]:
    assert record.after.low is not None and record.nonlinear.low is not None
    return record.after.low - record.chance_frac, record.nonlinear.low - record.chance_frac


def test_nothing_is_found_where_the_erasure_has_left_nothing() -> None:
    before, after, noise = pairs(600, 6)
    vectors = noise.copy()
    vectors[:, 0] += 3 * np.concatenate([before, after])
    record = probed(vectors, before, after, 360)
    assert record.before.frac > 0.9 and max(lows(record)) < 0
    assert (record.chance_frac, record.num_training_scenes) == (0.5, 360)


def test_what_an_eraser_of_too_few_scenes_has_left_is_found() -> None:
    """Of 256 dimensions, fitted on 40 scenes of 360: the probe is trained on all."""
    before, after, noise = pairs(600, 256)
    vectors = noise.copy()
    vectors[:, 0] += 3 * np.concatenate([before, after])
    record = probed(vectors, before, after, 40)
    assert lows(record)[0] > 0.05


def test_what_is_left_in_nonlinear_form_is_found_by_the_nonlinear_probe_alone() -> None:
    """One level has coordinates 1 and 2 of equal signs, the other of opposite ones: no linear map tells them apart."""
    before, after, noise = pairs(600, 4)
    level = np.concatenate([before, after])
    vectors = noise.copy() * 0.3
    signs = np.random.default_rng(2).choice([-1.0, 1.0], size=len(level))
    vectors[:, 0] += 3 * level
    vectors[:, 1] += signs
    vectors[:, 2] += signs * (1 - 2 * level)
    linear, nonlinear = lows(probed(vectors, before, after, 360))
    assert linear < 0 < 0.3 < nonlinear


def test_rounding_of_an_erasure_is_not_taken_for_information() -> None:
    """One channel is the level and nothing else: after the erasure it is constant up to rounding."""
    before, after, noise = pairs(100, 3)
    level = np.concatenate([before, after])
    vectors = np.concatenate([1000 * one_hot(level, NUM_LEVELS)[:, :1], noise], axis=1)
    assert max(lows(probed(vectors, before, after, 60))) < 0


def test_the_mean_of_erased_tokens_is_the_erased_mean() -> None:
    rng = np.random.default_rng(0)
    eraser = Eraser(*(torch.from_numpy(rng.standard_normal(shape)).float() for shape in ((5, 2), (2, 5), (5,))))
    tokens = torch.from_numpy(rng.standard_normal((4, 7, 5))).float()
    expected = eraser(tokens, torch.arange(4)).mean(dim=1).numpy()
    np.testing.assert_allclose(erase_vectors(eraser, tokens.mean(dim=1).numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_without_shrinkage_movement_is_the_least_on_the_fitted_tokens_and_both_erase(seed: int) -> None:
    before, after, noise = pairs(60, 40, seed)
    level = np.concatenate([before, after])
    vectors = noise * np.linspace(0.1, 2, 40)
    vectors[:, 0] += level
    every = np.ones(60, dtype=bool)
    labels = paired_labels(before, after, NUM_LEVELS).numpy()
    moved = {}
    for shrinkage in (False, True):
        erased = erase_vectors(fitted(vectors, before, after, every, shrinkage), vectors)
        moved[shrinkage] = float(np.square(erased - vectors).sum())
        assert np.abs((erased - erased.mean(axis=0)).T @ labels).max() < 1e-3 * np.abs((vectors - vectors.mean(axis=0)).T @ labels).max()
    assert moved[False] < moved[True]
