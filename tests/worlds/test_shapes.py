"""The shapes world: factors, queries and their truth, pictures, interventions pixel by pixel, and pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import Scene, Scenes, UnknownName
from theodolite.worlds.shapes.draw import CENTRES, PAINT, RADIUS, _place, _stencil_of
from theodolite.worlds.shapes.world import SPACE, Shapes

BASE = {
    "shape": "square",
    "colour": "blue",
    "size": "medium",
    "column": "left",
    "row": "upper",
    "texture": "plain",
    "ground": "grey",
    "letter": "E",
    "tilt": "upright",
    "sheen": "sheen-0",
}


@pytest.fixture(scope="module")
def world() -> Shapes:
    return Shapes()


def drawn_at(scenes: Scenes, factor: str, size: int) -> np.ndarray:
    """Mask of the pixels that show a factor's value in each scene: ground, letter, paint, or the object (place, size, shape, tilt)."""
    masks = np.zeros((len(scenes), size, size), dtype=bool)
    for index in range(len(scenes)):
        values = scenes.scene(index).values
        top, left, _ = _place(scenes, index, size)
        stencil = _stencil_of(values, size)
        visible = {"ground": stencil.ground > 0, "sheen": stencil.ground > 0, "letter": stencil.letter, "colour": stencil.colour > 0}
        masks[index] = factor in ("ground", "sheen")
        side = len(stencil.ground)
        masks[index, top : top + side, left : left + side] = visible.get(factor, stencil.ground < 1)
    return masks


def scenes_of(*changes: dict[str, str], nuisance: int = 5) -> Scenes:
    return Scenes.of(SPACE, [Scene({**BASE, **change}, nuisance) for change in changes])


# Factors and queries


def test_there_are_ten_factors_of_which_one_cannot_be_named(world: Shapes) -> None:
    sizes = dict(zip(world.space.names, world.space.sizes, strict=True))
    wanted = {"shape": 4, "colour": 4, "size": 3, "column": 4, "row": 4, "texture": 3, "ground": 3, "letter": 4, "tilt": 3}
    assert {name: sizes[name] for name in wanted} == wanted
    assert world.space.nameable == tuple(wanted) and set(sizes) - set(wanted) == {"sheen"}
    assert world.space.num_scenes == 4 * 4 * 3 * 4 * 4 * 3 * 3 * 4 * 3 * 3
    assert world.default_correlation == ("shape", "colour")


def test_colours_come_in_a_warm_and_a_cold_family_that_pixels_show(world: Shapes) -> None:
    groups = world.space["colour"].groups
    assert set(groups) == {"warm", "cold"} and sorted(sum(groups.values(), ())) == sorted(world.space["colour"].values)
    for value in world.space["colour"].values:
        red, _, blue = PAINT[value]
        assert (red > blue) == (value in groups["warm"])


def test_every_nameable_factor_has_all_forms_of_query_in_three_wordings(world: Shapes) -> None:
    forms: dict[str, set[str]] = defaultdict(set)
    for query in world.queries:
        negated = "!=" in query.name
        assert len(set(query.wordings)) == len(query.wordings) >= 3 and set(query.depends_on) == set(query.about.split("&"))
        for factor in query.depends_on:
            forms[factor].add("negated" if negated else query.form)
    assert forms == {name: {"open", "yes_no", "negated", "conjunction"} for name in world.space.nameable}
    values = [len(world.space[name].values) for name in world.space.nameable]
    assert len(world.queries) == 9 + 2 * sum(values) + sum(a * b for a, b in combinations(values, 2))


def test_no_query_and_no_word_tells_of_the_factor_that_cannot_be_named(world: Shapes) -> None:
    assert not any("sheen" in (*query.depends_on, *query.about.split("&")) for query in world.queries)
    assert not any("sheen" in text for text in world.texts)
    for name in ("sheen", "sheen=sheen-0", "sheen!=sheen-1"):
        with pytest.raises(BadInput, match=r"no query can name 'sheen'.*shape, colour"):
            world.query(name)


def test_a_wording_belongs_to_one_query_only(world: Shapes) -> None:
    said = Counter(text for query in world.queries for text in query.wordings)
    assert [text for text, times in said.items() if times > 1] == []


def test_truths_are_those_of_the_scene_in_words(world: Shapes) -> None:
    scenes = world.sample(40, np.random.default_rng(0))
    looks = [scenes.scene(i).values for i in range(len(scenes))]

    def holds(part: str, look: dict[str, str]) -> bool:
        factor, _, value = part.partition("=")
        return (look[factor.rstrip("!")] == value) != factor.endswith("!")

    for query in world.queries:
        expected = [
            look[query.name] if query.form == "open" else "yes" if all(holds(part, look) for part in query.name.split("&")) else "no"
            for look in looks
        ]
        assert [query.choices[level] for level in query.truth(scenes)] == expected, query.name


def test_queries_are_found_by_name_in_either_order_and_wrong_names_are_refused(world: Shapes) -> None:
    assert all(world.query(query.name) is query for query in world.queries)
    assert world.query("colour=red&shape=round") is world.query("shape=round&colour=red")
    assert "is it round and red?" in world.query("shape=round&colour=red").wordings
    assert "is it not on dark ground?" in world.query("ground!=dark").wordings
    for name in ("form", "form=round", "shape&colour", "shape=round&shape=square", "shape=round&colour=pink", "shape="):
        with pytest.raises(UnknownName, match=r"no query is called .*there is shape, colour, size"):
            world.query(name)
    with pytest.raises(UnknownName, match="no value of colour is called 'pink'; there is red, yellow, blue, green"):
        world.query("colour!=pink")


# Pictures


def test_a_picture_depends_on_its_scene_and_seed_alone(world: Shapes) -> None:
    scenes = world.sample(270, np.random.default_rng(1))  # more than are drawn at once
    pictures = world.render(scenes, 32)
    few = np.array([269, 3, 255, 256, 0])
    assert (world.render(scenes.take(few), 32) == pictures[few]).all()
    assert (Shapes().correlate("shape", "colour", 0.9).render(scenes.take(few), 32) == pictures[few]).all()
    other = world.render(scenes.take(few).reseed(np.random.default_rng(2)), 32)
    assert ((other != pictures[few]).any(axis=-1).mean(axis=(1, 2)) > 0.5).all()


def test_nuisance_moves_the_object_as_well_as_the_noise(world: Shapes) -> None:
    places = {object_centre(scenes_of({}, nuisance=seed), 64)[0].round(1).tobytes() for seed in range(6)}
    assert len(places) > 3


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_pictures_come_at_the_size_asked_for_and_show_the_same(world: Shapes, size: int) -> None:
    scenes = world.sample(8, np.random.default_rng(3))
    pictures = world.render(scenes, size)
    assert pictures.shape == (8, size, size, 3) and pictures.dtype == np.uint8
    coarse = pictures.reshape(8, 32, size // 32, 32, size // 32, 3).mean(axis=(2, 4))
    apart = np.abs(world.render(scenes, 32).astype(float)[:, None] - coarse[None]).mean(axis=(2, 3, 4))
    assert (apart.argmin(axis=1) == np.arange(8)).all() and apart.diagonal().max() < 8
    assert world.render(scenes.take(np.array([0]))).shape == (1, 64, 64, 3)


def test_pictures_too_small_for_letters_are_refused(world: Shapes) -> None:
    with pytest.raises(BadInput, match="size is 31; letters need pictures of 32 pixels"):
        world.render(scenes_of({}), 31)


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_letters_look_different_at_every_scale_and_tilt(world: Shapes, size: int) -> None:
    for scale, tilt in product(SPACE["size"].values, SPACE["tilt"].values):
        scenes = scenes_of(*({"size": scale, "tilt": tilt, "letter": letter} for letter in SPACE["letter"].values))
        for one, other in combinations(world.render(scenes, size).astype(int), 2):
            assert (np.abs(one - other).max(axis=-1) > 48).sum() >= (size / 16) ** 2


# Interventions


@pytest.mark.parametrize("factor", SPACE.names)
def test_an_intervention_changes_pixels_only_where_its_factor_is_drawn(world: Shapes, factor: str) -> None:
    rng = np.random.default_rng(7)
    before = world.independent.sample(36, rng)
    num_values = len(SPACE[factor].values)
    after = before.do(factor, (before.of_factor(factor) + rng.integers(1, num_values, size=36)) % num_values)
    changed = (world.render(before, 64) != world.render(after, 64)).any(axis=-1)
    drawn = drawn_at(before, factor, 64) | drawn_at(after, factor, 64)
    assert not (changed & ~drawn).any()
    assert changed.any(axis=(1, 2)).mean() > 0.95
    if factor in ("ground", "sheen"):
        assert 0.5 < drawn.mean() < 1
    else:
        assert drawn_at(before, factor, 64).mean(axis=(1, 2)).max() < 0.16
    if factor in ("ground", "colour"):  # and they show nearly wherever they are drawn
        assert changed[drawn].mean() > 0.9


def test_what_is_drawn_of_a_factor_is_where_some_value_of_another_does_not_show(world: Shapes) -> None:
    scenes = scenes_of(*({"shape": shape, "column": column} for shape in SPACE["shape"].values for column in ("leftmost", "right")))
    body, letter, ground, colour = (drawn_at(scenes, name, 64) for name in ("shape", "letter", "ground", "colour"))
    assert (ground | body).all() and not (letter & ~body).any() and not (colour & ~body).any()
    assert not (body & ground).all()
    assert (letter.any(axis=(1, 2)) & (letter.sum(axis=(1, 2)) < 0.7 * body.sum(axis=(1, 2)))).all()
    for name in ("size", "column", "row", "texture", "tilt"):
        assert (drawn_at(scenes, name, 64) == body).all()
    assert (drawn_at(scenes, "sheen", 64) == ground).all()


def covered_by_object(scenes: Scenes, size: int) -> np.ndarray:
    """How much of each pixel the object hides, 0 to 1: it is what does not change when only the ground does."""
    world = Shapes()
    grey, dark = (world.render(scenes.do("ground", np.full(len(scenes), level)), size)[..., 0].astype(float) for level in (1, 2))
    change = grey - dark
    bare = np.array([one[one > one.max() - 2].mean() for one in change])
    return np.asarray(1 - change / bare[:, None, None])


def object_centre(scenes: Scenes, size: int) -> np.ndarray:
    """Across and down, in pixels, for each scene."""
    hidden = covered_by_object(scenes, size)
    weight = np.where(hidden > 0.1, hidden, 0)
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    at = np.arange(size) + 0.5
    return np.stack([(weight.sum(axis=1) * at).sum(axis=1), (weight.sum(axis=2) * at).sum(axis=1)], axis=1)


@pytest.mark.parametrize(("size", "nuisance"), [(32, 0), (64, 1), (64, 2), (64, 3)])
def test_no_object_leaves_the_picture_at_any_place(size: int, nuisance: int) -> None:
    corners = list(product(SPACE["column"].values[::3], SPACE["row"].values[::3]))
    places = [{"column": column, "row": row} for column, row in [("left", "upper"), *corners]]
    for shape, tilt in (("triangular", "upright"), ("triangular", "clockwise"), ("square", "anticlockwise"), ("crossed", "clockwise")):
        look = {"shape": shape, "tilt": tilt, "size": "large", "letter": "K"}
        areas = covered_by_object(scenes_of(*({**look, **place} for place in places), nuisance=nuisance), size).sum(axis=(1, 2))
        assert np.abs(areas / areas[0] - 1).max() < 0.01
        assert 0.98 < areas[0] / (np.pi * (RADIUS["large"] * size) ** 2) < 1.08


def test_shapes_of_one_size_hide_the_same_area_and_sizes_differ() -> None:
    looks = [{"shape": shape, "size": scale} for scale in ("small", "medium", "large") for shape in SPACE["shape"].values]
    areas = (covered_by_object(scenes_of(*looks), 64).sum(axis=(1, 2)) / 64**2).reshape(3, 4)
    discs = np.pi * np.array([RADIUS[scale] for scale in ("small", "medium", "large")]) ** 2
    assert (np.abs(areas / discs[:, None] - 1.05) < 0.13).all()  # letters stick out of a small cross
    assert (areas[1:].min(axis=1) > areas[:-1].max(axis=1)).all()


def test_columns_and_rows_put_the_object_where_they_say() -> None:
    columns = object_centre(scenes_of(*({"column": value} for value in SPACE["column"].values)), 64)
    rows = object_centre(scenes_of(*({"row": value} for value in SPACE["row"].values)), 64)
    steps = np.diff(np.array(CENTRES)) * 64
    assert np.abs(np.diff(columns[:, 0]) - steps).max() < 1 and np.ptp(columns[:, 1]) < 0.1
    assert np.abs(np.diff(rows[:, 1]) - steps).max() < 1 and np.ptp(rows[:, 0]) < 0.1
    assert np.abs(columns[:, 0] - np.array(CENTRES) * 64).max() < 0.02 * 64 + 1


# Pairs


def test_a_pair_differs_in_exactly_its_factor_and_keeps_its_nuisance(world: Shapes) -> None:
    pairs = world.pairs(50, np.random.default_rng(8))
    assert pairs.kind == "exact" and len(pairs) == 50 * 11
    assert Counter(pairs.factor) == dict.fromkeys((*SPACE.names, ""), 50)
    base, other = pairs.pool.take(pairs.before), pairs.pool.take(pairs.after)
    differs = base.levels != other.levels
    for number, factor in enumerate(pairs.factor):
        expected = [name == factor for name in SPACE.names]
        assert differs[number].tolist() == expected
        assert (base.nuisance[number] == other.nuisance[number]) == bool(factor)
    first = pairs.pool.take(pairs.before[:50])
    assert (base.levels == first.levels[pairs.scene_id]).all() and (base.nuisance == first.nuisance[pairs.scene_id]).all()
    assert len(set(base.nuisance)) == 50


def test_targets_are_uniform_over_the_other_values(world: Shapes) -> None:
    pairs = world.pairs(3000, np.random.default_rng(9))
    factor = np.array(pairs.factor)
    for name in SPACE.names:
        rows = factor == name
        before, after = (pairs.pool.take(side[rows]).of_factor(name) for side in (pairs.before, pairs.after))
        num_values = len(SPACE[name].values)
        counts = np.zeros((num_values, num_values))
        np.add.at(counts, (before, after), 1)
        off = counts[~np.eye(num_values, dtype=bool)]
        assert counts.trace() == 0 and off.sum() == 3000
        assert stats.chisquare(off).pvalue > 0.001


def test_pairs_are_the_seed_s_whatever_the_prior(world: Shapes) -> None:
    tied = world.correlate("shape", "colour", 1.0)
    one, same, other = (
        world.pairs(30, np.random.default_rng(4)),
        tied.pairs(30, np.random.default_rng(4)),
        world.pairs(30, np.random.default_rng(5)),
    )
    assert (one.pool.levels == same.pool.levels).all() and (one.pool.nuisance == same.pool.nuisance).all()
    assert (one.pool.levels != other.pool.levels).any()
    assert 0 < tied.prior.agrees(same.pool.take(np.arange(30))).sum() < 30  # base scenes follow the independent prior
