"""Detectable differences: the power of the very tests and intervals, by simulation and by closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from helpers.unchecked import without_checks
from theodolite.stats import rates
from theodolite.stats.power import detectable_difference, detectable_rate, detectable_rate_difference, detectable_shift
from theodolite.stats.rates import clustered_rate, difference_p

UNCHECKED = without_checks(rates)
NUM_DRAWS = 800  # a power of 0.8 has a standard error of 0.014


@pytest.mark.parametrize("num_scenes", [3, 5, 30, 400])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_shift_has_the_power_of_the_non_central_t(num_scenes: int, power: float) -> None:
    shift = detectable_shift(num_scenes, 0.95, power)
    limit = stats.t.ppf(0.975, num_scenes - 1)
    assert stats.nct.sf(limit, num_scenes - 1, shift) + stats.nct.cdf(-limit, num_scenes - 1, shift) == pytest.approx(power, abs=2e-4)


@pytest.mark.parametrize("num_scenes", [2, 3, 5, 40])
def test_a_detectable_shift_is_found_four_times_in_five(num_scenes: int) -> None:
    rng = np.random.default_rng([1, num_scenes])
    draws = rng.normal(detectable_shift(num_scenes) / num_scenes**0.5, 1, (NUM_DRAWS, num_scenes))
    found = [UNCHECKED.difference_p(draw, np.arange(num_scenes)) for draw in draws]
    assert np.mean(np.array(found, dtype=float) <= 0.05) == pytest.approx(0.8, abs=0.045)


def test_what_is_detectable_depends_on_the_spread_and_never_on_the_observed_effect() -> None:
    values, scenes = np.random.default_rng(2).normal(0, 0.2, 80), np.repeat(np.arange(20), 4)
    centred = values - values.mean()
    found = detectable_difference(centred, scenes)
    means = centred.reshape(20, 4).mean(axis=1)
    assert found == pytest.approx(detectable_shift(20) * means.std(ddof=1) / 20**0.5)
    assert detectable_difference(centred + 0.05, scenes) == pytest.approx(found)
    assert detectable_difference(3 * centred, scenes) == pytest.approx(3 * found)


@pytest.mark.parametrize("num_scenes", [6, 20, 100])
def test_where_no_scene_differs_rare_changes_one_way_are_detectable(num_scenes: int) -> None:
    """The true share of changed scenes that the test itself finds four times in five."""
    share = detectable_difference(np.zeros(num_scenes), np.arange(num_scenes))
    assert share is not None
    changed = [difference_p((np.arange(num_scenes) < number).astype(float), np.arange(num_scenes)) for number in range(num_scenes + 1)]
    power = stats.binom.pmf(np.arange(num_scenes + 1), num_scenes, share) @ (np.array(changed, dtype=float) <= 0.05)
    assert power == pytest.approx(0.8, abs=1e-6)
    one = detectable_difference(np.eye(num_scenes)[0], np.arange(num_scenes))
    assert one is not None and one >= share  # one change does not make fewer detectable than none


@pytest.mark.parametrize("num_scenes", [1, 2, 5])
def test_so_few_scenes_detect_no_change(num_scenes: int) -> None:
    assert detectable_difference(np.zeros(num_scenes), np.arange(num_scenes)) is None
    assert num_scenes == 1 or detectable_difference(np.arange(num_scenes) - 0.5, np.arange(num_scenes)) is not None


@pytest.mark.parametrize(("num_scenes", "line"), [(20, 0.0), (20, 0.25), (56, 0.5), (200, 0.1)])
def test_a_detectable_rate_clears_the_line_four_times_in_five(num_scenes: int, line: float) -> None:
    above, below = detectable_rate(num_scenes, line), detectable_rate(num_scenes, line, below=True)
    assert above is not None
    rates = [clustered_rate((np.arange(num_scenes) < hits).astype(float), np.arange(num_scenes)) for hits in range(num_scenes + 1)]
    clears = np.array([each.low is not None and each.low > line for each in rates])
    assert stats.binom.pmf(np.arange(num_scenes + 1), num_scenes, above) @ clears == pytest.approx(0.8, abs=1e-6)
    if line == 0:
        assert below is None
        return
    assert below is not None and below < line < above
    clears = np.array([each.high is not None and each.high < line for each in rates])
    assert stats.binom.pmf(np.arange(num_scenes + 1), num_scenes, below) @ clears == pytest.approx(0.8, abs=1e-6)


def test_fifteen_scenes_cannot_show_a_rate_below_a_tenth() -> None:
    assert detectable_rate(15, 0.1, below=True) is None and detectable_rate(36, 0.1, below=True) is not None


@pytest.mark.parametrize(("num_scenes", "base", "line"), [(15, 0.0, 0.0), (40, 0.1, 0.05)])
def test_a_detectable_excess_over_a_base_rate_is_found_four_times_in_five(num_scenes: int, base: float, line: float) -> None:
    excess = detectable_rate_difference(num_scenes, base, line)
    assert excess is not None
    rng, scenes, found = np.random.default_rng([3, num_scenes]), np.arange(num_scenes), 0
    for _ in range(NUM_DRAWS):
        leak, noise = (rng.random((2, num_scenes)) < [[base + excess], [base]]).astype(float)
        low = UNCHECKED.rate_difference(leak, scenes, noise, scenes).low
        found += low is not None and low > line
    assert found / NUM_DRAWS == pytest.approx(0.8, abs=0.045)


def test_more_scenes_detect_less_and_too_few_detect_nothing() -> None:
    found = [detectable_rate_difference(number, 0.1) for number in (20, 56, 200, 500)]
    assert all(one is not None and other is not None and other < one for one, other in pairwise(found))
    assert detectable_rate_difference(6, 0.5) is None and detectable_rate(3, 0.5) is None
    with pytest.raises(ValueError, match="two or more"):
        detectable_rate(1, 0.5)
