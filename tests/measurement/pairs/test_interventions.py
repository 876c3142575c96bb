"""What interventions give of their pictures: the levels of their own factor, and in exact pairs those of all others."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.planted_vlm import Planted
from theodolite.measurement.pairs.interventions import Interventions, interventions_of, known_levels
from theodolite.measurement.pairs.plan import plan_world


def test_exact_pairs_give_every_factor_of_every_picture() -> None:
    """Against the scenes that the pictures are drawn from."""
    world = Planted()
    plan = plan_world(world, world.policy("hue"), 20, 0, 64)
    pool = world.pairs(20, np.random.default_rng([0, 0])).pool
    values = {factor.name: factor.values for factor in world.space.factors}
    interventions = interventions_of(plan.rows, values)
    levels = known_levels(interventions, exact=True)
    pictures = np.unique(np.concatenate([side for each in interventions.values() for side in (each.before, each.after)]))
    for name in values:
        np.testing.assert_array_equal(levels[name][pictures], pool.of_factor(name)[pictures])


def pair(factor: str, before: int, after: int, level: int) -> Interventions:
    one = np.array
    return Interventions(factor, ("x", "y"), one([before]), one([after]), one([level]), one([1 - level]), one([0]))


@pytest.mark.parametrize("exact", [True, False])
def test_matched_pairs_give_their_own_factor_alone(exact: bool) -> None:
    """Pictures 0 - 1 differ in a, 0 - 2 in b; the pair 3 - 4 is of another scene and never tells b."""
    a = Interventions("a", ("x", "y"), np.array([0, 3]), np.array([1, 4]), np.array([0, 1]), np.array([1, 0]), np.array([0, 1]))
    levels = known_levels({"a": a, "b": pair("b", 0, 2, 1)}, exact=exact)
    assert levels["a"].tolist() == [0, 1, 0 if exact else -1, 1, 0]
    assert levels["b"].tolist() == [1, 1 if exact else -1, 0, -1, -1]
    assert known_levels({}, exact=exact) == {}
