"""How often 95 % intervals hold the truth, over rates 0.02 to 0.98 and 10 to 500 scenes: at least 0.93, at most 0.99.

One row a scene: exact, by the binomial or multinomial weights of the outcomes, so without an error of simulation (outcomes that together
have a chance of 0.001 are left out and count as misses). Several rows a scene, and real values: simulated with fixed seeds. The standard
error of a coverage of 0.95 is then 0.005 at 2,000 draws, 0.007 at 1,000 and 0.01 at 500, so the true coverage of a cell that just passes
may be 0.92.

The upper limit does not apply, by `few`, where fewer than five scenes are expected to have the rarer answer: outcomes are then a few whole
numbers, and an exact interval, which misses on neither side in more than 2.5 % of them, must cover more. Nor does it apply where the truth
is at a bound of its range, which no interval misses on that side. Each test names its cells.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from helpers.unchecked import without_checks
from theodolite.records.part import Estimate, Rate
from theodolite.stats import jackknife, rates

LEAST, MOST = 0.93, 0.99
FEW = 5.0
ROUND = 1e-9  # a truth that equals an end up to rounding is inside
RATES = (0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98)


RATES_MODULE, JACKKNIFE_MODULE = without_checks(rates), without_checks(jackknife)
vars(JACKKNIFE_MODULE).update(partition=RATES_MODULE.partition, degrees_of_freedom=RATES_MODULE.degrees_of_freedom)


def holds(low: float | None, high: float | None, truth: float) -> bool:
    assert low is not None and high is not None and low < high
    return low - ROUND <= truth <= high + ROUND


def few(num_scenes: int, *fracs: float) -> bool:
    """Whether fewer than five scenes are expected to have the rarer answer of some rate."""
    return min(min(frac, 1 - frac) for frac in fracs) * num_scenes < FEW


def check(coverages: dict[tuple[object, ...], tuple[float, bool]]) -> None:
    """All coverages within the limits; with True, only the lower limit applies."""
    wrong = {cell: round(each, 4) for cell, (each, rare) in coverages.items() if not LEAST <= each <= (1 if rare else MOST)}
    assert not wrong


def of_distinct(draws: np.ndarray, found: Callable[[np.ndarray], Rate | Estimate], truth: float) -> float:
    """Share of draws (first axis) whose interval holds the truth; scenes (second axis) have no order, so equal draws count together."""
    code = draws.reshape(*draws.shape[:2], -1).astype(np.int64)
    code = (code * 11 ** np.arange(code.shape[2])).sum(axis=2)
    _, first, counts = np.unique(np.sort(code, axis=1), axis=0, return_index=True, return_counts=True)
    hits = [holds(each.low, each.high, truth) for each in (found(draws[index]) for index in first)]
    return float(np.asarray(hits) @ counts / len(draws))


def drawn(frac: float, scene_numbers: np.ndarray, alike: float, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of 0 and 1, draw by scene by row: each row follows its scene's number with chance `alike`, else one of its own."""
    shape = (*scene_numbers.shape, num_rows)
    return np.where(rng.random(shape) < alike, scene_numbers[:, :, None], rng.random(shape)) < frac


# Rates


@pytest.mark.parametrize("num_scenes", [20, 56, 100, 200, 500])
def test_a_rate_of_one_row_a_scene(num_scenes: int) -> None:
    """Exact. Rare: fewer than five expected hits or misses."""
    scenes, hits = np.arange(num_scenes), np.arange(num_scenes + 1)
    found = [RATES_MODULE.clustered_rate((scenes < number).astype(float), scenes) for number in hits]
    coverages = {}
    for frac in RATES:
        inside = np.array([holds(each.low, each.high, frac) for each in found])
        coverages[num_scenes, frac] = float(stats.binom.pmf(hits, num_scenes, frac) @ inside), few(num_scenes, frac)
    check(coverages)


@pytest.mark.parametrize("alike", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("num_scenes", [20, 56, 100, 200])
def test_a_rate_of_four_rows_a_scene(num_scenes: int, alike: float) -> None:
    """Simulated, 1,000 draws or more. Rare: fewer than five scenes with a hit (or a miss), were all rows of a scene equal."""
    rng, coverages, num_draws = np.random.default_rng([1, num_scenes, int(100 * alike)]), {}, 1_500 if num_scenes < 200 else 1_000
    scenes = np.repeat(np.arange(num_scenes), 4)
    for frac in RATES if alike == 0.7 else (0.02, 0.5, 0.95):
        draws = drawn(frac, rng.random((num_draws, num_scenes)), alike, 4, rng).sum(axis=2)

        def found(hits: np.ndarray) -> Rate:
            return RATES_MODULE.clustered_rate((np.arange(4) < hits[:, None]).ravel().astype(float), scenes)

        coverages[num_scenes, alike, frac] = of_distinct(draws, found, frac), few(num_scenes, frac)
    check(coverages)


@pytest.mark.parametrize("num_scenes", [20, 100])
def test_a_rate_of_scenes_with_one_to_four_rows(num_scenes: int) -> None:
    """Simulated, 1,500 draws. Rare: as above."""
    rng, coverages = np.random.default_rng([2, num_scenes]), {}
    sizes = rng.integers(1, 5, num_scenes)
    scenes, used = np.repeat(np.arange(num_scenes), sizes), (np.arange(4) < sizes[:, None]).ravel()
    for frac in (0.05, 0.5, 0.8):
        draws = drawn(frac, rng.random((1_500, num_scenes)), 0.7, 4, rng).reshape(1_500, -1)[:, used].astype(float)
        inside = [holds(each.low, each.high, frac) for each in (RATES_MODULE.clustered_rate(draw, scenes) for draw in draws)]
        coverages[num_scenes, frac] = float(np.mean(inside)), few(num_scenes, frac)
    check(coverages)


# Paired differences


def paired(changes: np.ndarray, scenes: np.ndarray) -> Estimate:
    found: Estimate = RATES_MODULE.paired_difference(np.zeros(len(changes)), changes.astype(float), scenes, 0.95, (-1.0, 1.0))
    return found


def exact_coverage(num_scenes: int, up: float, down: float, cache: dict[tuple[int, int], tuple[float, float]]) -> float:
    """Coverage of the paired difference by enumeration of the numbers of scenes that go up and down."""
    number, scenes = np.arange(num_scenes + 1), np.arange(num_scenes)
    ups, downs = (each.ravel() for each in np.meshgrid(number, number, indexing="ij"))
    possible = ups + downs <= num_scenes
    ups, downs = ups[possible], downs[possible]
    weights = stats.binom.pmf(ups, num_scenes, up) * stats.binom.pmf(downs, num_scenes - ups, down / (1 - up) if up < 1 else 0.0)
    order = np.argsort(-weights, kind="stable")
    order = order[: int(np.searchsorted(np.cumsum(weights[order]), 0.999)) + 1]
    covered = 0.0
    for one, other, weight in zip(ups[order].tolist(), downs[order].tolist(), weights[order].tolist(), strict=True):
        if (one, other) not in cache:
            found = paired((scenes < one).astype(float) - (scenes >= num_scenes - other), scenes)
            assert found.low is not None and found.high is not None
            cache[one, other] = found.low, found.high
        covered += weight * holds(*cache[one, other], up - down)
    return covered


@pytest.mark.parametrize("num_scenes", [20, 56, 100, 200, 500])
def test_a_paired_difference_of_one_row_a_scene(num_scenes: int) -> None:
    """Exact: all changes one way, and both ways. Rare: fewer than five expected changes one way that has any, or scenes without change.

    Also exempt from the upper limit: 20 scenes whose changes all go up. The truth of the other way, 0, is at its bound, while 20 scenes
    without a decrease leave it up to 17 %.
    """
    cells = [(up, 0.0) for up in RATES]
    if num_scenes <= 100:
        cells += [(0.02, 0.02), (0.1, 0.02), (0.5, 0.02), (0.2, 0.1), (0.5, 0.4)]
    elif num_scenes == 200:
        cells += [(0.02, 0.02), (0.1, 0.02), (0.2, 0.1)]
    cache: dict[tuple[int, int], tuple[float, float]] = {}
    check(
        {
            (num_scenes, up, down): (
                exact_coverage(num_scenes, up, down, cache),
                few(num_scenes, up, down or 0.5, min(up + down, 1.0)) or (num_scenes == 20 and down == 0),
            )
            for up, down in cells
        }
    )


@pytest.mark.parametrize("num_scenes", [20, 56, 200])
def test_a_paired_difference_of_four_rows_a_scene(num_scenes: int) -> None:
    """Simulated, 600 draws: rows of a scene change together with chance 0.7. Rare: as above."""
    rng, coverages, scenes = np.random.default_rng([3, num_scenes]), {}, np.repeat(np.arange(num_scenes), 4)
    for up, down in ((0.02, 0.0), (0.1, 0.0), (0.95, 0.0), (0.3, 0.1)):
        ups, downs = (drawn(each, numbers, 0.7, 4, rng) for each, numbers in zip((up, down), rng.random((2, 600, num_scenes)), strict=True))
        changes = np.sort(ups.astype(int) - (downs & ~ups), axis=2)
        truth = up - down * (1 - up)
        coverages[num_scenes, up, down] = (
            of_distinct(changes + 1, lambda each: paired((each - 1).ravel(), scenes), truth),
            few(num_scenes, up, down or 0.5),
        )
    check(coverages)


# Differences of two rates


@pytest.mark.parametrize(("num_rows", "num_draws"), [(1, 1_000), (4, 500)])
@pytest.mark.parametrize("num_scenes", [20, 56, 200])
@pytest.mark.parametrize("alike", [0.0, 0.7, 1.0])
def test_a_difference_of_two_rates_on_the_same_scenes(num_scenes: int, alike: float, num_rows: int, num_draws: int) -> None:
    """Simulated. `alike`: chance that a row of either side follows its scene's one number. Rare: fewer than five expected hits or misses of
    a side, or, where rows follow the scene's number, scenes on which the sides differ."""
    rng, coverages, scenes = (
        np.random.default_rng([4, num_scenes, int(10 * alike), num_rows]),
        {},
        np.repeat(np.arange(num_scenes), num_rows),
    )
    for one, other in ((0.02, 0.0), (0.05, 0.02), (0.5, 0.2), (0.55, 0.5), (0.98, 0.5)):
        numbers = rng.random((num_draws, num_scenes))
        draws = np.stack([drawn(frac, numbers, alike, num_rows, rng).sum(axis=2) for frac in (one, other)], axis=2)

        def found(hits: np.ndarray) -> Estimate:
            sides = [(np.arange(num_rows) < hits[:, [side]]).ravel().astype(float) for side in (0, 1)]
            return RATES_MODULE.rate_difference(sides[0], scenes, sides[1], scenes)

        rare = few(num_scenes, one, other) or (alike > 0 and few(num_scenes, one - other))
        coverages[num_scenes, alike, one, other] = of_distinct(draws, found, one - other), rare
    check(coverages)


@pytest.mark.parametrize(("num_scenes", "num_others"), [(20, 15), (56, 100), (200, 40)])
def test_a_difference_of_two_rates_on_other_scenes(num_scenes: int, num_others: int) -> None:
    """Exact, by the binomials of both sides. Rare: fewer than five expected hits or misses of a side."""
    numbers = num_scenes, num_others
    coverages, hits = {}, [np.arange(number + 1) for number in numbers]
    cache: dict[tuple[int, int], tuple[float, float]] = {}
    for fracs in ((0.02, 0.02), (0.05, 0.5), (0.5, 0.45), (0.98, 0.9)):
        weights = np.outer(*(stats.binom.pmf(each, number, frac) for each, number, frac in zip(hits, numbers, fracs, strict=True)))
        covered = 0.0
        for one, other in np.argwhere(weights > 1e-3 * weights.max()).tolist():
            if (one, other) not in cache:
                sides = [
                    ((np.arange(number) < hit).astype(float), np.arange(number)) for number, hit in zip(numbers, (one, other), strict=True)
                ]
                found = RATES_MODULE.rate_difference(*sides[0], sides[1][0], sides[1][1] + num_scenes)
                cache[one, other] = found.low, found.high
            covered += weights[one, other] * holds(*cache[one, other], fracs[0] - fracs[1])
        coverages[numbers, fracs] = covered, few(num_scenes, fracs[0]) or few(num_others, fracs[1])
    check(coverages)


# R2


def errors_and_totals(kind: str, num_scenes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """4,000 draws of squared errors and totals by scene, and the true ratio of their means."""
    shape = (4_000, num_scenes)
    if kind == "three values":  # squared errors of three indicators, all totals equal
        return 0.05 * rng.chisquare(3, shape), np.full(shape, 0.75), 0.2
    if kind == "one value":
        return 0.3 * rng.chisquare(1, shape), np.ones(shape), 0.3
    value = rng.normal(size=shape)  # a regression whose slope is too small, so errors are large where totals are
    return (0.3 * value + rng.normal(0, 0.3, shape)) ** 2, value**2, 0.18


@pytest.mark.parametrize("num_scenes", [10, 20, 50, 100, 200])
@pytest.mark.parametrize("kind", ["three values", "one value", "slope"])
def test_an_unexplained_part_and_so_an_r2(kind: str, num_scenes: int) -> None:
    """Simulated, 4,000 draws (standard error 0.0035); no cell is exempt."""
    errors, totals, truth = errors_and_totals(kind, num_scenes, np.random.default_rng([5, num_scenes, len(kind)]))
    found = (JACKKNIFE_MODULE.clustered_ratio(*draw, np.arange(num_scenes)) for draw in zip(errors, totals, strict=True))
    check({(kind, num_scenes): (float(np.mean([holds(each.low, each.high, truth) for each in found])), False)})


# The jackknife


def left_out_weights(num_scenes: int) -> np.ndarray:
    """Row 0: all scenes; the others leave one of ten groups out."""
    group = np.arange(num_scenes) % 10
    return np.concatenate([np.ones((1, num_scenes)), group[None] != np.arange(10)[:, None]]).astype(float)


def covers(replicates: np.ndarray, truth: float, bounds: tuple[float, float]) -> float:
    """Share of draws whose jackknife ends hold the truth; column 0 is the value of all scenes."""
    ends = [JACKKNIFE_MODULE.jackknife_ends(float(row[0]), row[1:], bounds, 0.95) for row in replicates]
    return float(np.mean([holds(low, high, truth) for low, high in ends]))


@pytest.mark.parametrize("num_scenes", [10, 20, 50, 100, 200])
@pytest.mark.parametrize(("num_dims", "length"), [(3, 0.9), (3, 5.2), (16, 1.2), (16, 4.0)])
def test_a_mean_cosine(num_dims: int, length: float, num_scenes: int) -> None:
    """Simulated, 2,000 draws: mean cosine of pairs of directions with noise of variance 1 in each dimension; no cell is exempt."""
    rng, direction = np.random.default_rng([6, num_dims, num_scenes]), length * np.eye(num_dims)[0]
    many = direction + rng.normal(size=(200_000, num_dims))
    truth = float(np.square((many / np.linalg.norm(many, axis=1, keepdims=True)).mean(axis=0)).sum())
    vectors = direction + rng.normal(size=(2_000, num_scenes, num_dims))
    weights = left_out_weights(num_scenes)
    sums, number = weights @ (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)), weights.sum(axis=1)
    check(
        {
            (num_dims, length, num_scenes): (
                covers((np.square(sums).sum(axis=2) - number) / (number * (number - 1)), truth, (-1.0, 1.0)),
                False,
            )
        }
    )


@pytest.mark.parametrize("num_scenes", [10, 20, 50, 100, 200])
@pytest.mark.parametrize(("num_dims", "length", "truth"), [(3, 2.0, 0.0), (3, 2.0, 0.36), (16, 4.0, 0.09), (16, 4.0, 0.81)])
def test_a_squared_cosine_of_mean_directions(num_dims: int, length: float, truth: float, num_scenes: int) -> None:
    """Simulated, 1,000 draws. Exempt from the upper limit: a truth of 0, at the bound, and 0.81, whose bias by noise (in 16 dimensions it
    makes directions less alike) is as large as the error and so adds to it. Directions shorter than the square root of the number of
    dimensions over the number of scenes are not covered: their overlap cannot be told from one of noise."""
    rng, angle = np.random.default_rng([7, num_dims, num_scenes, int(100 * truth)]), np.arccos(truth**0.5)
    axes, weights = np.eye(num_dims), left_out_weights(num_scenes)
    one, other = (
        weights @ (length * direction + rng.normal(size=(1_000, num_scenes, num_dims)))
        for direction in (axes[0], np.cos(angle) * axes[0] + np.sin(angle) * axes[1])
    )
    squared = (one * other).sum(axis=2) ** 2 / (np.square(one).sum(axis=2) * np.square(other).sum(axis=2))
    check({(num_dims, truth, num_scenes): (covers(squared, truth, (0.0, 1.0)), truth in (0.0, 0.81))})
