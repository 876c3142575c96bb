"""Rates of many columns at once against one rate after the other."""

from __future__ import annotations

import numpy as np
import pytest

from theodolite.stats.rates import clustered_rate, clustered_rates


@pytest.mark.parametrize("scenes", [np.arange(24), np.repeat(np.arange(12), 2), np.repeat([0, 1, 5], [20, 3, 1]), np.repeat([3, 4], 12)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_columns_have_the_rates_that_each_has_alone(scenes: np.ndarray, confidence: float) -> None:
    rng = np.random.default_rng(0)
    columns = np.concatenate(
        [
            np.stack([np.zeros(24), np.ones(24), np.full(24, 0.5), np.arange(24) % 2, (np.arange(24) == 7)]),
            (rng.random((40, 24)) < rng.random((40, 1))).astype(float),
            rng.random((10, 24)),
        ]
    )
    together = clustered_rates(columns, scenes, confidence)
    for column, rate in zip(columns, together, strict=True):
        alone = clustered_rate(column, scenes, confidence)
        assert (rate.num_pairs, rate.num_scenes) == (alone.num_pairs, alone.num_scenes)
        assert (rate.frac, rate.low, rate.high) == pytest.approx((alone.frac, alone.low, alone.high), abs=1e-10)


def test_one_scene_gives_no_ends_and_no_row_is_refused() -> None:
    one = clustered_rates(np.array([[0.0, 1.0], [1.0, 1.0]]), np.zeros(2, dtype=int))
    assert [(rate.frac, rate.low, rate.high) for rate in one] == [(0.5, None, None), (1.0, None, None)]
    with pytest.raises(ValueError, match="no rows"):
        clustered_rates(np.zeros((3, 0)), np.zeros(0, dtype=int))
