"""Correlations, the distribution over scenes that they make, and policies over it."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy import stats

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import Factor, FactorSpace, Scene, Scenes, UnknownName
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, PolicyLine, Query, open_query, yes_no_query
from theodolite.worlds.shapes.world import Shapes

SIZES = {"three": 3, "four": 4, "other": 4, "eight": 8, "two": 2}
SPACE = FactorSpace(tuple(Factor(name, tuple(f"{name}-{i}" for i in range(size))) for name, size in SIZES.items()))


def all_scenes() -> Scenes:
    levels = np.array(list(product(*(range(size) for size in SPACE.sizes))), dtype=np.int16)
    return Scenes(SPACE, levels, np.arange(len(levels)))


def query(name: str) -> Query:
    factor, _, value = name.partition("=")
    return yes_no_query(SPACE, factor, value, ["?"], negated=False) if value else open_query(SPACE, factor, ["?"])


def policy(text: str) -> Policy:
    return Policy.parse(text, query)


# The map: which value sets which


@pytest.mark.parametrize(
    ("cause", "effect", "sets"),
    [
        ("four", "other", [[0], [1], [2], [3]]),
        ("three", "eight", [[0, 1, 2], [3, 4, 5], [6, 7]]),
        ("four", "eight", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("three", "four", [[0, 1], [2], [3]]),
        ("two", "three", [[0, 1], [2]]),
        ("four", "two", [[0], [0], [1], [1]]),
        ("four", "three", [[0], [0], [1], [2]]),
        ("eight", "three", [[0], [0], [0], [1], [1], [1], [2], [2]]),
    ],
)
def test_the_map_of_equal_larger_and_smaller_effects(cause: str, effect: str, sets: list[list[int]]) -> None:
    (known,) = Prior(SPACE).correlate(cause, effect, 0.9).correlations
    assert [np.flatnonzero(row).tolist() for row in known.follows(SPACE)] == sets
    assert known.describe(SPACE) == {f"{cause}-{i}": [f"{effect}-{j}" for j in row] for i, row in enumerate(sets)}
    for strength in (0.0, 0.3, 0.9, 1.0):
        (known,) = Prior(SPACE).correlate(cause, effect, strength).correlations
        size = SIZES[effect]
        expected = [[strength / len(row) * (j in row) + (1 - strength) / size for j in range(size)] for row in sets]
        assert known.conditional(SPACE) == pytest.approx(np.array(expected))
        assert known.conditional(SPACE).sum(axis=1) == pytest.approx(np.ones(len(sets)))


def test_each_value_of_a_larger_effect_is_set_by_exactly_one_cause() -> None:
    for cause, effect in (("three", "eight"), ("four", "eight"), ("three", "four"), ("two", "three")):
        (known,) = Prior(SPACE).correlate(cause, effect, 1.0).correlations
        assert (known.follows(SPACE).sum(axis=0) == 1).all() and known.follows(SPACE).any(axis=1).all()


# The distribution


def test_strength_09_of_four_by_four_is_agreement_0925() -> None:
    prior = Prior(SPACE).correlate("four", "other", 0.9)
    table = prior.table(("four", "other"))
    assert table.trace() == pytest.approx(0.925)
    assert table == pytest.approx(np.where(np.eye(4, dtype=bool), 0.925, 0.025) / 4)
    assert prior.agrees(prior.sample(20_000, np.random.default_rng(0))).mean() == pytest.approx(0.925, abs=0.01)


def test_a_chain_multiplies_along_its_links_in_any_order_of_building() -> None:
    forward = Prior(SPACE).correlate("three", "four", 0.8).correlate("four", "two", 0.6)
    backward = Prior(SPACE).correlate("four", "two", 0.6).correlate("three", "four", 0.8)
    first, second = (known.conditional(SPACE) for known in forward.correlations)
    expected = np.einsum("a,ab,bc->cab", np.full(3, 1 / 3), first, second)
    for prior in (forward, backward):
        assert np.broadcast_to(prior.table(("two", "three", "four")), (2, 3, 4)) == pytest.approx(expected)
        assert prior.table(("two", "three", "four")).sum() == pytest.approx(1)
        assert prior.correlated == {"three", "four", "two"}


def test_tables_of_all_factors_and_of_untouched_ones_sum_to_1() -> None:
    prior = Prior(SPACE).correlate("other", "three", 0.7).correlate("three", "eight", 0.5)
    full = np.broadcast_to(prior.table(SPACE.names), SPACE.sizes)
    assert full.sum() == pytest.approx(1) and full.min() > 0
    assert np.broadcast_to(prior.table(("four", "two")), (4, 2)) == pytest.approx(np.full((4, 2), 1 / 8))
    touched = prior.table(("three", "other", "eight"))
    assert full == pytest.approx(np.broadcast_to(touched[:, None, :, :, None] / 8, SPACE.sizes))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_samples_follow_the_table(strength: float) -> None:
    # Built against the causal order, so that sampling has to find it.
    prior = Prior(SPACE).correlate("four", "two", 0.6).correlate("three", "four", strength)
    scenes, names = prior.sample(20_000, np.random.default_rng(1)), ("three", "four", "two", "other")
    counts = np.zeros([SIZES[name] for name in names])
    np.add.at(counts, tuple(scenes.of_factor(name) for name in names), 1)
    expected = np.broadcast_to(prior.table(names), counts.shape) * len(scenes)
    assert counts[expected == 0].sum() == 0
    assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001
    assert (expected == 0).any() == (strength == 1)


def test_samples_are_the_seed_s_and_have_nuisance_of_their_own() -> None:
    prior = Prior(SPACE).correlate("four", "other", 0.9)
    one, same, other = (prior.sample(500, np.random.default_rng(seed)) for seed in (2, 2, 3))
    assert (one.levels == same.levels).all() and (one.nuisance == same.nuisance).all()
    assert (one.levels != other.levels).any() and len(set(one.nuisance)) == 500


def test_agreement_is_following_every_correlation() -> None:
    prior = Prior(SPACE).correlate("four", "other", 0.9).correlate("three", "eight", 0.5)
    scenes = all_scenes()
    runs = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    both = (scenes.of_factor("four") == scenes.of_factor("other")) & (runs[scenes.of_factor("eight")] == scenes.of_factor("three"))
    assert (prior.agrees(scenes) == both).all()
    assert (np.broadcast_to(prior.agreement(SPACE.names), SPACE.sizes).ravel() == both).all()
    assert Prior(SPACE).agrees(scenes).all()


# What cannot be correlated


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_a_strength_that_is_no_probability_is_refused(strength: float) -> None:
    with pytest.raises(BadInput, match=f"strength is {strength}.*from 0 to 1"):
        Prior(SPACE).correlate("four", "other", strength)


def test_an_unknown_factor_is_refused_with_those_that_exist() -> None:
    for cause, effect in (("five", "four"), ("four", "five")):
        with pytest.raises(UnknownName, match="no factor is called 'five'; there is three, four, other, eight, two"):
            Prior(SPACE).correlate(cause, effect, 0.5)


def test_circles_and_effects_set_twice_are_refused() -> None:
    chain = Prior(SPACE).correlate("three", "four", 0.5).correlate("four", "other", 0.5)
    for cause, effect in (("four", "three"), ("other", "three"), ("eight", "eight")):
        with pytest.raises(BadInput, match=f"{cause} -> {effect} closes a cycle"):
            chain.correlate(cause, effect, 0.5)
    with pytest.raises(BadInput, match="other is already set"):
        chain.correlate("eight", "other", 0.5)
    assert len(chain.correlate("other", "eight", 0.5).correlations) == 3 and len(chain.correlations) == 2


# Scenes and interventions


def test_an_intervention_changes_one_factor_and_keeps_the_nuisance() -> None:
    scenes = Prior(SPACE).sample(50, np.random.default_rng(4))
    before = scenes.levels.copy()
    changed = scenes.do("eight", (scenes.of_factor("eight") + 1) % 8)
    assert ((changed.levels != before).sum(axis=1) == 1).all() and (changed.of_factor("eight") != scenes.of_factor("eight")).all()
    assert (changed.nuisance == scenes.nuisance).all() and (scenes.levels == before).all()
    assert (scenes.reseed(np.random.default_rng(5)).levels == before).all()
    scene = scenes.scene(0)
    assert scene.do(two="two-1") == Scene({**scene.values, "two": "two-1"}, scene.nuisance)
    assert (Scenes.of(SPACE, [scenes.scene(i) for i in range(50)]).levels == before).all()
    with pytest.raises(UnknownName, match="no factor is called 'five'"):
        scene.do(five="1")


# Policies


def test_a_policy_is_read_line_by_line_and_written_back() -> None:
    found = policy(" three:agree, four:odd*2 ,two=two-0:yes*0.5,other*3,three")
    expected = [("three", "agree", 1), ("four", "odd", 2), ("two=two-0", "yes", 0.5), ("other", "all", 3), ("three", "all", 1)]
    assert [(ask.query.name, ask.region, ask.rate) for ask in found.lines] == expected
    assert str(found) == "three:agree,four:odd*2,two=two-0:yes*0.5,other*3,three"
    assert str(policy(str(found))) == str(found)
    assert [asked.name for asked in found.queries] == ["three", "four", "two=two-0", "other"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asks nothing"),
        (" , ", "asks nothing"),
        ("three:", "cannot read 'three:'; write QUERY, QUERY:REGION"),
        (":odd", "cannot read ':odd'"),
        ("three*often", "rate of 'three\\*often' is 'often'; give a number"),
        ("three*0", "the rate of 'three' is 0.0; give a number above 0"),
        ("three*-1", "above 0"),
        ("three*nan", "above 0"),
        ("three*inf", "above 0"),
        ("three:even", "'even' scenes; regions are all, agree, odd, three-0, three-1, three-2"),
        ("three:odd&even", "'even' scenes; regions are .* FACTOR=VALUE, or several of these joined by '&'"),
        ("three:two=", "'two=' scenes"),
        ("three,five", "no factor is called 'five'"),
        ("two=two-7", "no value of two is called 'two-7'; there is two-0, two-1"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        policy(text)


def test_regions_are_where_their_words_say() -> None:
    prior = Prior(SPACE).correlate("four", "other", 0.9)
    scenes = all_scenes()
    agree = scenes.of_factor("four") == scenes.of_factor("other")
    first = scenes.of_factor("two") == 0
    regions = {
        "three": np.ones(len(scenes), dtype=bool),
        "three:agree": agree,
        "three:odd": ~agree,
        "two:two-0": first,
        "two=two-0:yes": first,
        "two=two-0:no": ~first,
        "three:two=two-0": first,
        "three:odd&two=two-0": ~agree & first,
        "two:two-0&four=four-1": first & (scenes.of_factor("four") == 1),
    }
    for text, expected in regions.items():
        (ask,) = policy(text).lines
        assert (ask.inside(scenes, prior) == expected).all(), text
        assert (np.broadcast_to(ask.inside_table(prior, SPACE.names), SPACE.sizes).ravel() == expected).all(), text


def test_a_region_that_names_no_factor_or_value_of_the_world_is_refused_where_it_is_used() -> None:
    prior, scenes = Prior(SPACE), all_scenes()
    for text, message in {"three:five=5": "no factor is called 'five'", "three:two=two-7": "no value of two is called 'two-7'"}.items():
        (ask,) = policy(text).lines
        with pytest.raises(UnknownName, match=message):
            ask.inside(scenes, prior)
        with pytest.raises(UnknownName, match=message):
            ask.inside_table(prior, SPACE.names)
    assert policy("three:two=two-0,other").depends_on == {"three", "two", "other"}


def test_a_constant_rate_asks_every_scene_the_same_number_of_questions() -> None:
    prior = Prior(SPACE).correlate("four", "other", 0.5)
    scenes = prior.sample(300, np.random.default_rng(6))
    drawn = policy("three:agree,eight:odd,eight").draw(scenes, prior, np.random.default_rng(7))
    for agrees, asked in zip(prior.agrees(scenes), drawn, strict=True):
        assert [found.name for found in asked] == (["three", "eight"] if agrees else ["eight", "eight"])
    assert {len(asked) for asked in policy("four*3").draw(scenes, prior, np.random.default_rng(8))} == {3}


def test_a_fractional_rate_is_right_on_average_and_rounded_to_its_neighbours() -> None:
    prior = Prior(SPACE)
    scenes = prior.sample(4000, np.random.default_rng(9))
    asked = policy("four*2.25,two:two-1*0.5")
    drawn = asked.draw(scenes, prior, np.random.default_rng(10))
    fours = np.array([sum(found.name == "four" for found in names) for names in drawn])
    assert set(fours) == {2, 3} and fours.mean() == pytest.approx(2.25, abs=0.03)
    twos = Counter(
        (int(level), sum(found.name == "two" for found in names)) for level, names in zip(scenes.of_factor("two"), drawn, strict=True)
    )
    assert set(twos) == {(0, 0), (1, 0), (1, 1)} and twos[1, 1] / (twos[1, 0] + twos[1, 1]) == pytest.approx(0.5, abs=0.05)
    assert asked.rates(scenes, prior)[1] == pytest.approx(0.5 * (scenes.of_factor("two") == 1))
    assert str(PolicyLine(query("two"), "two-1", 0.5)) == "two:two-1*0.5"


def test_rates_that_sum_to_a_whole_number_cost_every_scene_exactly_as_many_questions() -> None:
    world = Shapes().correlate("shape", "colour", 0.8)
    policy = world.policy("shape:agree*0.5,shape:odd*2,row:agree*1.5")
    scenes = world.sample(4000, np.random.default_rng(0))
    drawn = policy.draw(scenes, world.prior, np.random.default_rng(1))
    assert {len(asked) for asked in drawn} == {2}
    agrees = world.prior.agrees(scenes)
    shapes = np.array([sum(query.name == "shape" for query in asked) for asked in drawn])
    assert set(shapes[~agrees]) == {2}
    assert set(shapes[agrees]) == {0, 1}
    assert abs(shapes[agrees].mean() - 0.5) < 0.03
    # Many lines, one of which is asked of a scene: sixteenths do not sum to 1 in floating point.
    many = world.policy(",".join(f"{query.name}*{1 / 49!r}" for query in world.queries[:49]))
    assert {len(asked) for asked in many.draw(scenes, world.prior, np.random.default_rng(2))} == {1}
