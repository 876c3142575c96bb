"""Identifiability: mixtures of known factors, with known answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.ensemble import RandomForestClassifier

from helpers.measure_contexts import array_context
from theodolite.measurement.internals.axes import (
    MAX_AXES,
    NUM_TREES,
    AxesRead,
    FactorLevels,
    bagged_trees,
    choose_axes,
    correlation,
    dci,
    jackknifed,
    match_coordinates,
)
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.identifiability import KnownPictures, identify, known_pictures, measure_identifiability, r_squared
from theodolite.measurement.internals.probes import assign_folds
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.identifiability import SiteIdentifiability
from theodolite.records.progress import silent
from theodolite.stats.jackknife import clustered_ratio

FACTORS = ("colour", "shape", "size", "texture")
NUM_ROWS = 500


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_table(num_levels: int = 2) -> KnownPictures:
    levels = rng(1).integers(num_levels, size=(NUM_ROWS, len(FACTORS)))
    rows = np.arange(NUM_ROWS)
    return KnownPictures(FACTORS, (num_levels,) * len(FACTORS), rows, levels, rows // 2)


@cache
def identified(mixture: str, num_levels: int = 2) -> SiteIdentifiability:
    table = a_table(num_levels)
    training = table.scene % 5 < 3
    site = identify(MIXTURES[mixture](table), table, training, assign_folds(table.scene[training], rng(2)), 0.95)
    assert site is not None
    return site


def values(table: KnownPictures) -> np.ndarray:
    """The levels of each factor as numbers of mean 0, with a little noise."""
    return np.asarray(table.levels - table.levels.mean(axis=0) + 0.01 * rng(3).standard_normal(table.levels.shape))


def exclusive(table: KnownPictures) -> np.ndarray:
    """Each pair of factors as one of them and their exclusive or: invertible, but not linearly."""
    signs = 1.0 - 2 * table.levels
    mixed = np.stack([signs[:, 0], signs[:, 0] * signs[:, 1], signs[:, 2], signs[:, 2] * signs[:, 3]], axis=1)
    return np.asarray(mixed + 0.01 * rng(4).standard_normal(mixed.shape))


ROTATION = np.linalg.qr(rng(10).standard_normal((60, 60)))[0]


def hidden(table: KnownPictures) -> np.ndarray:
    """Each factor in one of 60 channels, among shared directions of much larger variance."""
    shared = 5 * rng(8).standard_normal((NUM_ROWS, 40)) @ rng(9).standard_normal((40, 56))
    return np.hstack([values(table), shared])


MIXTURES: dict[str, Callable[[KnownPictures], np.ndarray]] = {
    "identity": values,
    "permutation": lambda table: values(table)[:, [2, 0, 3, 1]] * np.array([1, -3, 0.1, -1]) + 5,
    "rotation": lambda table: values(table) @ np.kron(np.eye(2), [[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2),
    "exclusive or": exclusive,
    "noise": lambda table: rng(5).standard_normal((NUM_ROWS, 12)),
    "hidden channels": hidden,
    "hidden channels, rotated": lambda table: (
        (hidden(table) / hidden(table).std(axis=0)) @ np.linalg.qr(rng(10).standard_normal((60, 60)))[0]
    ),
    "wide": lambda table: values(table) @ rng(6).standard_normal((len(FACTORS), 60)) + 0.01 * rng(7).standard_normal((NUM_ROWS, 60)),
}


@pytest.mark.parametrize("mixture", ["identity", "permutation"])
def test_the_factors_themselves_are_identified_in_any_order_and_scale(mixture: str) -> None:
    site = identified(mixture)
    scores = (site.disentanglement, site.completeness, site.informativeness, site.mcc, site.linear_r2, site.nonlinear_r2)
    assert scores == pytest.approx((1,) * 6, abs=0.02)
    assert site.num_axes == len(FACTORS) and site.kept_variance_frac == 1


def test_a_rotation_costs_mcc_and_dci_and_no_linear_r2() -> None:
    site = identified("rotation")
    assert site.linear_r2 == pytest.approx(1, abs=0.01)
    assert site.mcc == pytest.approx(np.sqrt(0.5), abs=0.05)  # each axis is half of each of its two factors
    assert site.disentanglement == pytest.approx(0.5, abs=0.15)  # two factors of four: 1 - log 2 / log 4


def test_an_invertible_map_that_is_not_linear_is_seen_by_nonlinear_r2_alone() -> None:
    site = identified("exclusive or")
    for bent in ("shape", "texture"):
        assert site.factors[bent].linear_r2.value < 0.05 and site.factors[bent].nonlinear_r2.value > 0.95
    for straight in ("colour", "size"):
        assert site.factors[straight].linear_r2.value > 0.95


def test_levels_on_one_line_are_one_hot_only_after_a_bend() -> None:
    site = identified("identity", 4)
    assert site.linear_r2 < 0.5 and site.nonlinear_r2 > 0.9 and site.mcc > 0.98 and site.informativeness > 0.98


def test_noise_is_none_of_the_factors() -> None:
    site = identified("noise")
    assert site.disentanglement is not None and site.completeness is not None
    assert site.disentanglement < 0.1 and site.completeness < 0.1 and abs(site.informativeness) < 0.2
    assert site.mcc < 0.15 and abs(site.linear_r2) < 0.1 and abs(site.nonlinear_r2) < 0.1


def test_of_many_dimensions_the_channels_most_like_the_factors_are_read() -> None:
    site = identified("wide")
    assert not site.principal and (site.num_dims, site.num_axes) == (60, MAX_AXES)
    assert site.linear_r2 > 0.99 and 0.9 < site.mcc < 0.98, "every channel mixes all factors, and of 60 some are mostly one of them"


def test_factors_in_single_channels_of_many_are_found_and_a_rotation_of_the_channels_loses_them() -> None:
    """Principal components are the same before and after a rotation, and large shared ones hide the factors from them."""
    own, turned = identified("hidden channels"), identified("hidden channels, rotated")
    assert own.mcc > 0.95 and own.disentanglement is not None and own.disentanglement > 0.9
    assert turned.mcc < 0.5 < own.mcc and turned.linear_r2 == pytest.approx(own.linear_r2, abs=0.02)


def test_dci_and_mcc_have_intervals_that_hold_their_values() -> None:
    site = identified("rotation")
    for name in ("disentanglement", "completeness", "informativeness", "mcc"):
        each = site.intervals[name]
        assert each.value == getattr(site, name) and each.num_scenes == 100
    for block in site.factors.values():
        assert set(block.intervals) == {"completeness", "informativeness", "matched"} and block.intervals["matched"].value == block.matched
    mcc = site.intervals["mcc"]
    assert mcc.low is not None and mcc.high is not None and mcc.low < mcc.value < mcc.high < mcc.low + 0.3


def test_the_interval_of_mcc_holds_the_truth_and_has_a_width() -> None:
    """An axis that is a level plus noise of the same variance as the level: truth is the root of one half."""
    hits = 0
    for seed in range(25):
        draw = rng(seed)
        levels = draw.integers(2, size=(200, 2))
        axes = AxesRead(*np.split(2.0 * levels + draw.standard_normal((200, 2)), [120]), 2)
        scenes = np.arange(200) // 2
        table = FactorLevels(levels[:120], levels[120:], scenes[:120], scenes[120:])
        estimate = jackknifed(lambda *given: match_coordinates(*given).mean(keepdims=True), axes, table, 10, 0.95, np.zeros(1))[0]
        assert estimate is not None and estimate.low is not None and estimate.high is not None
        hits += estimate.low <= 0.5**0.5 <= estimate.high
    assert hits >= 21


def test_intervals_hold_their_values() -> None:
    for block in identified("noise").factors.values():
        for estimate in (block.linear_r2, block.nonlinear_r2):
            assert estimate.low is not None and estimate.high is not None
            assert estimate.low < estimate.value < estimate.high and estimate.num_scenes == 100


# Trees


@pytest.mark.parametrize(("noise", "num_train"), [(0.0, 200), (1.5, 200), (1.5, 20)])
def test_bagged_trees_are_the_random_forest_of_scikit_learn_with_all_axes_at_each_split(noise: float, num_train: int) -> None:
    """To the bit of every vote, ties among splits included, which few rows have many of."""
    draw = rng(11)
    levels = draw.choice([0, 1, 3], size=(num_train + 100, 2))  # a level without rows is never predicted
    axes = np.eye(4)[levels].reshape(len(levels), 8) @ draw.standard_normal((8, 6)) + noise * draw.standard_normal((len(levels), 6))
    train, test = np.split(axes.astype(np.float32), [num_train])
    own = levels[:num_train, 0]
    forest = RandomForestClassifier(NUM_TREES, max_features=None, min_samples_leaf=2, random_state=0).fit(train, own)
    importance, predicted = bagged_trees(train, own, test)
    assert importance == pytest.approx(forest.feature_importances_, abs=1e-12) and importance.sum() == pytest.approx(1)
    assert predicted.tolist() == forest.predict(test).tolist() and 2 not in predicted


def test_trees_give_importance_to_the_axis_that_decides_and_none_where_nothing_does() -> None:
    levels = rng(1).integers(3, size=200)
    axes = np.stack([rng(2).standard_normal(200), -2.0 * levels], axis=1).astype(np.float32)
    importance, predicted = bagged_trees(axes[:120], levels[:120], axes[120:])
    assert importance == pytest.approx([0, 1]) and (predicted == levels[120:]).all()
    importance, _ = bagged_trees(np.ones((120, 2), dtype=np.float32), levels[:120], np.ones((80, 2), dtype=np.float32))
    assert importance.tolist() == [0, 0]


# Closed forms


def test_dci_of_known_importances() -> None:
    assert dci(np.eye(3)) == (pytest.approx(1), pytest.approx((1, 1, 1)))
    assert dci(np.ones((4, 3))) == (pytest.approx(0), pytest.approx((0, 0, 0)))
    two_axes = dci(np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert two_axes[0] == pytest.approx(0.5)  # rows weigh alike: 1 and 0
    assert two_axes[1] == pytest.approx((1 + (2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3)), 1))
    assert dci(np.array([[1.0, 1.0, 0.0]]))[1] is None and dci(np.array([[1.0], [2.0]]))[0] is None


def test_the_correlation_of_two_levels_is_the_root_of_the_adjusted_squared_pearson_r() -> None:
    levels = rng(1).integers(2, size=400)
    axis = np.exp(rng(2).standard_normal(400) + levels)
    r = pearsonr(axis, levels).statistic
    freed = np.sqrt(1 - (1 - r**2) * 399 / 398)
    assert correlation(axis[:, None], levels)[0] == pytest.approx(freed) and freed < abs(r)


def test_the_correlation_is_1_for_a_function_of_the_level_and_about_0_for_noise() -> None:
    levels = rng(1).integers(5, size=400)
    assert correlation(np.array([3.0, -1.0, 9.0, 0.0, 2.0])[levels][:, None], levels)[0] == pytest.approx(1)
    assert correlation(rng(2).standard_normal((400, 50)), levels).mean() < 0.05
    assert correlation(np.ones((400, 1)), levels)[0] == 0


def test_matching_is_one_to_one() -> None:
    """One axis that holds both factors serves one of them only."""
    levels = rng(1).integers(2, size=(300, 2))
    both = levels @ np.array([[1.0], [0.8]])
    axes = choose_axes(np.hstack([both, levels[:, [0]] + 0.0]), np.hstack([both, levels[:, [0]] + 0.0]), levels)
    assert match_coordinates(axes, levels, levels)[0] == pytest.approx(1) and 0.3 < match_coordinates(axes, levels, levels)[1] < 0.9
    alone = choose_axes(both, both, levels)
    assert sorted(match_coordinates(alone, levels, levels) > 0) == [False, True]


def test_r2_has_the_interval_of_its_unexplained_part() -> None:
    error, total, scenes = np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4), np.arange(4)
    site, rest = r_squared(error, total, scenes, 0.9), clustered_ratio(error, total, scenes, 0.9)
    assert site.value == 0.75 and rest.low is not None and rest.high is not None
    assert (site.low, site.high) == pytest.approx((1 - rest.high, 1 - rest.low), abs=1e-6)


# Pictures with known values of all factors


def changes(before: list[int], shape_before: list[int]) -> dict[str, Interventions]:
    """Colour and shape of two scenes, changed from the given pictures to pictures 10 to 13."""

    def of(factor: str, base: list[int], after: list[int], levels: list[int]) -> Interventions:
        pairs = (base, after, levels, [1 - level for level in levels], [5, 6])
        return Interventions(factor, ("a", "b"), *(np.array(each) for each in pairs))

    return {"shape": of("shape", shape_before, [12, 13], [1, 1]), "colour": of("colour", before, [10, 11], [0, 1])}


def test_base_pictures_come_first_and_changed_ones_differ_in_one_factor() -> None:
    table = known_pictures(changes([0, 1], [0, 1]))
    assert isinstance(table, KnownPictures) and table.factors == ("colour", "shape")
    assert table.picture.tolist() == [0, 1, 10, 12, 11, 13] and table.scene.tolist() == [5, 6, 5, 5, 6, 6]
    assert table.levels.tolist() == [[0, 1], [1, 1], [1, 1], [0, 0], [0, 1], [1, 0]]


def test_without_one_base_picture_there_is_a_reason_and_no_number() -> None:
    reason = known_pictures(changes([0, 1], [0, 7]))
    assert isinstance(reason, str) and "shape" in reason and "6" in reason
    assert isinstance(known_pictures({}), str)


def test_where_pictures_are_too_many_factors_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theodolite.measurement.internals.identifiability.MAX_PICTURES", 4)
    table = known_pictures(changes([0, 1], [0, 1]))
    assert isinstance(table, KnownPictures) and table.picture.tolist() == [0, 1, 10, 12], "one of colour, one of shape"


def context(vectors: dict[str, np.ndarray]) -> MeasureContext:
    """Twenty scenes of two factors, and the vectors of their 60 pictures by site."""
    scene, base = np.arange(20), np.arange(20) % 4
    levels = {"colour": base % 2, "shape": base // 2}
    interventions = {
        name: Interventions(name, ("a", "b"), scene, scene + 20 * (number + 1), level, 1 - level, scene)
        for number, (name, level) in enumerate(levels.items())
    }
    return array_context(
        interventions=interventions,
        activations=SimpleNamespace(sites=tuple(vectors), mean=vectors.__getitem__),
        rng=lambda name: rng(),
        progress=silent,
    )


def test_a_collapsed_site_is_left_out_and_said_and_the_others_are_measured() -> None:
    alike, varied = np.ones((60, 3), dtype=np.float32), rng(8).standard_normal((60, 3)).astype(np.float32)
    some = measure_identifiability(context({"connector": alike, "layer.1": varied}))
    assert tuple(some.sites) == ("layer.1",) and some.reason is None
    assert some.left_out == {"connector": "it is the same for every training picture"}
    none = measure_identifiability(context({"connector": alike}))
    assert not none.sites and none.reason is not None and tuple(none.left_out) == ("connector",) and none.num_pictures == 60
