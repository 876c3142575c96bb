"""The easy-vqa world: factors against the official questions, the choice of scenes, pairs, and the text-only baseline."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from itertools import product

import easy_vqa
import numpy as np
import pytest
from PIL import Image

from theodolite.measurement.survey.official import text_only_answers
from theodolite.worlds.easy_vqa import data
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.factors import Scenes, UnknownName
from theodolite.worlds.world import OfficialSplit, Pairs

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "gray", "red", "green", "blue", "yellow", "teal", "brown")


@pytest.fixture(scope="module")
def world() -> EasyVQA:
    return EasyVQA()


@pytest.fixture(scope="module")
def tied(world: EasyVQA) -> EasyVQA:
    return world.correlate("shape", "colour", 0.9)


@pytest.fixture(scope="module")
def pairs(world: EasyVQA) -> Pairs:
    return world.pairs(400, np.random.default_rng(3))


def askable(world: EasyVQA, query: str, scenes: Scenes) -> np.ndarray:
    """Whether each scene meets a query's presupposition: all do, except for "shape@colour=red" and the like."""
    condition = data.presumed(world.query(query).name)
    if condition is None:
        return np.ones(len(scenes), dtype=bool)
    factor, value = condition
    return np.asarray(scenes.of_factor(factor) == world.space[factor].level(value))


def levels(world: EasyVQA, pictures: range) -> np.ndarray:
    return world.scenes(np.array(pictures)).levels


def combinations(scenes: Scenes) -> np.ndarray:
    counts = np.zeros((3, 8), dtype=int)
    np.add.at(counts, (scenes.of_factor("shape"), scenes.of_factor("colour")), 1)
    return counts


# Factors and questions


def test_the_factors_answer_every_official_question_as_the_package_does(world: EasyVQA) -> None:
    asked = 0
    for split in ("train", "test"):
        rows = world.official(split)
        for query in (*world.queries, *world.presuming_queries):
            mine = rows.take(rows.query == query.name)
            truth = query.truth(world.scenes(mine.picture))
            assert [query.choices[index] for index in truth] == mine.answer.tolist(), query.name
            assert askable(world, query.name, world.scenes(mine.picture)).all(), query.name
            asked += len(mine)
    assert asked == 38575 + 9673


def test_a_wrong_factor_would_contradict_the_questions(world: EasyVQA) -> None:
    rows = world.official("train").take(np.arange(2000))
    for factor in ("shape", "colour"):
        scenes = world.scenes(rows.picture)
        wrong = scenes.do(factor, (scenes.of_factor(factor) + 1) % len(world.space[factor].values))
        missed = sum(
            (query.truth(wrong)[here] != [query.choices.index(answer) for answer in rows.answer[here]]).sum()
            for query in world.queries
            if (here := rows.query == query.name).any()
        )
        assert missed > 200


def test_official_rows_are_those_of_the_package(world: EasyVQA) -> None:
    for split, read, start in (("train", easy_vqa.get_train_questions, 0), ("test", easy_vqa.get_test_questions, 4000)):
        texts, answers, pictures = read()
        rows = world.official(split)
        assert rows.text.tolist() == texts and rows.answer.tolist() == answers
        assert (rows.picture - start).tolist() == pictures


def test_each_official_text_is_a_wording_of_exactly_one_query(world: EasyVQA) -> None:
    said = Counter(text for query in (*world.queries, *world.presuming_queries) for text in query.wordings)
    assert set(said.values()) == {1}
    assert set(said) == set(world.official("train").text) == set(world.official("test").text)
    assert world.query("shape").wordings == ("what shape is in the image?", "what shape does the image contain?", "what shape is present?")
    assert "is no red shape present?" in world.query("colour!=red").wordings
    assert len(world.query("shape=circle").wordings) == 4


def test_questions_and_pixels_agree_on_shape_and_colour_wherever_both_tell(world: EasyVQA) -> None:
    seen, open_shapes = data.measure_pictures(), data.possible_levels("shape")
    settled = open_shapes.sum(axis=1) == 1
    assert 4700 < settled.sum() < 5000  # some pictures are left to the fill, so that rule must be right
    assert (data.shape_by_fill(seen.fill) == open_shapes.argmax(axis=1))[settled].all()
    unsettled = seen.fill[~settled]
    assert not ((unsettled > 0.61) & (unsettled < 0.74)).any()
    assert data.possible_levels("colour")[np.arange(5000), seen.colour].all()


def test_all_24_combinations_occur_in_both_splits(world: EasyVQA) -> None:
    for numbers, fewest in ((range(4000), 100), (range(4000, 5000), 20)):
        found = combinations(world.scenes(np.array(numbers)))
        assert found.shape == (3, 8) and found.min() >= fewest and found.sum() == len(numbers)


def test_place_and_size_are_balanced_and_cannot_be_named(world: EasyVQA) -> None:
    assert world.space.names == ("shape", "colour", "column", "row", "size")
    assert world.space.nameable == ("shape", "colour")
    share = levels(world, range(5000))[:, 2:].mean(axis=0)
    assert (np.abs(share - 0.5) < 0.02).all()


def test_place_and_size_are_where_the_object_is(world: EasyVQA) -> None:
    pictures = world.render(world.scenes(np.arange(0, 5000, 61)))
    for picture, (_, colour, column, row, size) in zip(pictures, levels(world, range(0, 5000, 61)), strict=True):
        down, across = np.nonzero((picture == data.PALETTE[COLOURS[colour]]).all(axis=-1))
        width, height = np.ptp(across) + 1, np.ptp(down) + 1
        assert ((across.min() + across.max() + 1) / 2 > 32) == column
        assert ((down.min() + down.max() + 1) / 2 > 32) == row
        assert (width * height > 17.5**2) == size


# Queries


def test_queries_have_the_choices_and_answers_of_their_factor(world: EasyVQA) -> None:
    scene = world.scenes(np.flatnonzero((levels(world, range(4000))[:, :2] == [0, 2]).all(axis=1))[:1])  # a red circle
    expected = {"shape": "circle", "colour": "red", "shape=circle": "yes", "shape!=circle": "no", "shape=triangle": "no"}
    expected |= {"colour!=blue": "yes", "shape@colour=red": "circle", "colour@shape=circle": "red"}
    for name, answer in expected.items():
        query = world.query(name)
        assert query.choices[int(query.truth(scene)[0])] == answer, name
    assert world.query("shape@colour=red").form == "open" and world.query("shape@colour=red").depends_on == ("shape",)


def test_presuming_queries_are_kept_apart_and_know_where_they_hold(world: EasyVQA) -> None:
    assert len(world.queries) == 24 and len(world.presuming_queries) == 11
    assert not any("@" in query.name for query in world.queries)
    scenes = world.scenes(np.arange(500))
    red = askable(world, "shape@colour=red", scenes)
    assert (red == (scenes.of_factor("colour") == 2)).all() and 0 < red.sum() < 500
    assert askable(world, "shape=circle", scenes).all()


@pytest.mark.parametrize("name", ["form", "column", "shape=square", "shape=circle&colour=red", "shape@colour=pink"])
def test_an_unknown_query_is_refused_with_a_list_of_those_that_exist(world: EasyVQA, name: str) -> None:
    with pytest.raises(UnknownName, match=r"no query is called .* there is shape, shape=circle, .*colour!=red.*colour@shape=circle"):
        world.query(name)
    with pytest.raises(UnknownName, match="no split"):
        world.official("validation")


def test_policies_read_real_queries(world: EasyVQA) -> None:
    assert str(world.policy("shape:agree,colour=red*2")) == "shape:agree,colour=red*2"


# Pictures


def test_rendering_gives_the_package_s_own_pictures(world: EasyVQA) -> None:
    folder = data.package_folder() / "data"
    pictures = world.render(world.scenes(np.array([7, 4007])))
    for picture, path in zip(pictures, (folder / "train/images/7.png", folder / "test/images/7.png"), strict=True):
        assert (picture == np.asarray(Image.open(path).convert("RGB"))).all()
    large = world.render(world.scenes(np.array([7])), 96)
    assert large.shape == (1, 96, 96, 3) and large.dtype == np.uint8
    expected = Image.fromarray(pictures[0]).resize((96, 96), Image.Resampling.BICUBIC)
    assert (large[0] == np.asarray(expected)).all()


def test_shared_arrays_cannot_be_changed_through_what_is_handed_out(world: EasyVQA) -> None:
    scenes = world.scenes(np.array([7]))
    world.render(scenes)[:] = 0
    assert world.render(scenes).max() > 0
    for shared in (data.read_pictures(), data.derived_levels(), world.official("train").picture):
        with pytest.raises(ValueError, match="read-only"):
            shared[0] = 0


def test_a_scene_that_is_no_picture_is_refused(world: EasyVQA) -> None:
    scenes = world.scenes(np.array([5, 6]))
    changed = scenes.do("colour", (scenes.of_factor("colour") + np.array([0, 1])) % 8)
    with pytest.raises(ValueError, match=r"picture 6 shows .* real pictures, in which no factor can be set"):
        world.render(changed)
    with pytest.raises(ValueError, match="there is no picture 5000"):
        world.scenes(np.array([4999, 5000]))
    with pytest.raises(ValueError, match="there is no picture"):
        world.render(world.independent.sample(3, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="size is 0"):
        world.render(scenes, 0)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install easy-vqa"):
        data.package_folder()
    assert importlib.util.find_spec("easy_vqa") is not None


# The choice of training scenes


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("num_scenes", [37, 600])
def test_chosen_scenes_follow_the_prior_s_table_to_within_one_picture(world: EasyVQA, strength: float, num_scenes: int) -> None:
    one = world.correlate(*world.default_correlation, strength)
    scenes = one.sample(num_scenes, np.random.default_rng(0))
    wanted = one.prior.table(("shape", "colour")) * num_scenes
    assert (np.abs(combinations(scenes) - wanted) < 1).all() and len(scenes) == num_scenes
    agree = (np.arange(8)[None] * 3 // 8 == np.arange(3)[:, None]).astype(float)
    expected = (wanted * agree).sum() / num_scenes
    assert abs(one.prior.agrees(scenes).mean() - expected) < 8 / num_scenes
    if strength == 1:
        assert one.prior.agrees(scenes).all()


def test_chosen_scenes_are_different_train_pictures_with_their_own_levels(tied: EasyVQA) -> None:
    scenes = tied.sample(900, np.random.default_rng(1))
    assert len(set(scenes.nuisance)) == 900 and scenes.nuisance.max() < 4000
    assert (scenes.levels == data.derived_levels()[scenes.nuisance]).all()
    # shuffled: the first third holds its share of every shape
    assert (np.abs(np.bincount(scenes.of_factor("shape")[:300], minlength=3) - 100) < 40).all()


def test_any_tie_between_factors_is_followed(world: EasyVQA) -> None:
    one = world.correlate("column", "shape", 1.0)
    scenes = one.sample(240, np.random.default_rng(0))
    assert one.prior.agrees(scenes).all()
    assert np.bincount(scenes.of_factor("column")).tolist() == [120, 120]


@pytest.mark.parametrize("strength", [0.0, 0.9, 1.0])
def test_max_scenes_can_be_had_and_one_more_cannot(world: EasyVQA, strength: float) -> None:
    one = world.correlate("shape", "colour", strength)
    most = one.max_scenes()
    assert len(set(one.sample(most, np.random.default_rng(0)).nuisance)) == most
    with pytest.raises(ValueError, match=f"{most + 1} scenes asked for.* allow 0 to {most}"):
        one.sample(most + 1, np.random.default_rng(0))
    for num_scenes in range(most - 30, most):
        one.sample(num_scenes, np.random.default_rng(0))


def test_only_eligible_pictures_are_chosen(tied: EasyVQA) -> None:
    rows = tied.official("train")
    eligible = np.zeros(4000, dtype=bool)
    eligible[rows.picture[rows.query == "shape"]] = True
    most = tied.max_scenes(eligible=eligible)
    assert 0 < most < tied.max_scenes()
    scenes = tied.sample(most, np.random.default_rng(0), eligible=eligible)
    assert eligible[scenes.nuisance].all()
    with pytest.raises(ValueError, match=f"allow 0 to {most}"):
        tied.sample(most + 1, np.random.default_rng(0), eligible=eligible)
    assert tied.max_scenes(eligible=np.zeros(4000, dtype=bool)) == 0
    assert len(tied.sample(0, np.random.default_rng(0), eligible=np.zeros(4000, dtype=bool))) == 0
    with pytest.raises(ValueError, match="one boolean for each of the 4000 train pictures"):
        tied.sample(5, np.random.default_rng(0), eligible=eligible[:100])


def test_the_seed_decides_the_choice(tied: EasyVQA) -> None:
    first, again, other = (tied.sample(200, np.random.default_rng(seed)).nuisance for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()


# Pairs


def test_pairs_differ_in_just_their_factor_and_come_from_test_pictures(world: EasyVQA, pairs: Pairs) -> None:
    assert pairs.kind == "matched" and len(pairs) == len(pairs.factor) == len(pairs.before) == len(pairs.after)
    before, after = pairs.pool.take(pairs.before), pairs.pool.take(pairs.after)
    differs = before.levels != after.levels
    expected = np.array([[factor == name for name in world.space.names] for factor in pairs.factor])
    assert (differs == expected).all()
    assert pairs.pool.nuisance.min() >= 4000 and pairs.pool.nuisance.max() < 5000
    assert (before.nuisance != after.nuisance).all()
    world.render(pairs.pool)


def test_most_scenes_have_a_partner_for_every_factor(pairs: Pairs) -> None:
    counts = Counter(pairs.factor)
    assert set(counts) == {"shape", "colour", "column", "row", "size", ""}
    assert all(380 <= count <= 400 for count in counts.values()), counts


def test_scene_ids_name_one_base_scene_each_and_the_pool_holds_no_picture_twice(pairs: Pairs) -> None:
    rows = set(zip(pairs.factor, pairs.scene_id.tolist(), strict=True))
    assert len(rows) == len(pairs)
    base_of = dict(zip(pairs.scene_id.tolist(), pairs.before.tolist(), strict=True))
    assert [base_of[scene] for scene in pairs.scene_id.tolist()] == pairs.before.tolist()
    assert len(set(base_of.values())) == len(base_of) and max(base_of) <= 399
    assert len(set(pairs.pool.nuisance)) == len(pairs.pool)
    assert set(pairs.before.tolist()) | set(pairs.after.tolist()) == set(range(len(pairs.pool)))


def test_the_partner_is_the_nearest_that_qualifies_and_missing_rows_have_none(world: EasyVQA, pairs: Pairs) -> None:
    everything, box = levels(world, range(4000, 5000)), data.measure_pictures().box[4000:]
    numbers = pairs.pool.nuisance - 4000
    for row in range(0, len(pairs), 23):
        start, end, factor = numbers[pairs.before[row]], numbers[pairs.after[row]], pairs.factor[row]
        kept = [column for column, name in enumerate(("column", "row", "size")) if name != factor]
        distance = np.sqrt(((box[:, kept] - box[start, kept]) ** 2).sum(axis=1))
        rivals = (everything == everything[end]).all(axis=1) & (np.arange(1000) != start)
        assert distance[end] == distance[rivals].min()
    left_out = set(range(400)) - {scene for scene, name in zip(pairs.scene_id, pairs.factor, strict=True) if name == ""}
    base_of = dict(zip(pairs.scene_id.tolist(), numbers[pairs.before].tolist(), strict=True))
    assert left_out
    for scene in left_out:
        assert (everything == everything[base_of[scene]]).all(axis=1).sum() == 1


def test_base_scenes_spread_over_combinations_and_targets_over_values(world: EasyVQA, pairs: Pairs) -> None:
    rows = np.array(pairs.factor) == "colour"
    base, target = pairs.pool.take(pairs.before[rows]), pairs.pool.take(pairs.after[rows]).of_factor("colour")
    found = combinations(base)
    assert found.max() <= 17 and found.min() >= 14  # 400 scenes over 24 combinations: 16 or 17, but for rows left out
    step = np.bincount((target - base.of_factor("colour")) % 8, minlength=8)
    assert step[0] == 0 and (np.abs(step[1:] - rows.sum() / 7) < 28).all()  # 4 standard errors


def test_pairs_repeat_by_seed_and_reach_the_last_test_picture(world: EasyVQA) -> None:
    first, again, other = (world.pairs(60, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.factor == again.factor and (first.pool.nuisance == again.pool.nuisance).all()
    assert (first.before == again.before).all() and (first.after == again.after).all()
    assert len(first.pool) != len(other.pool) or (first.pool.nuisance != other.pool.nuisance).any()
    assert len(set(world.pairs(1000, np.random.default_rng(0)).pool.nuisance)) == 1000
    with pytest.raises(ValueError, match="1001 base scenes asked for; there are 1000 test pictures"):
        world.pairs(1001, np.random.default_rng(0))


def test_pairs_are_the_same_under_every_prior(world: EasyVQA, tied: EasyVQA) -> None:
    plain, correlated = (one.pairs(50, np.random.default_rng(4)) for one in (world, tied))
    assert (plain.pool.nuisance == correlated.pool.nuisance).all() and plain.factor == correlated.factor


# Without pictures, and without torch


def test_text_alone_answers_yes_no_questions_well_and_open_ones_badly(world: EasyVQA) -> None:
    train, test = world.official_split("train"), world.official_split("test")
    right = np.array(text_only_answers(train, test), dtype=object) == np.array(test.answer, dtype=object)
    is_open = ~np.isin(np.array(test.answer), ("yes", "no"))
    assert right[is_open].mean() == pytest.approx(0.233, abs=0.01)
    assert right[~is_open].mean() == pytest.approx(0.825, abs=0.01)
    assert right.mean() == pytest.approx(0.670, abs=0.01)


def test_the_baseline_counts_ties_by_alphabet_and_knows_no_unseen_text(world: EasyVQA) -> None:
    def rows(*pairs: tuple[str, str]) -> OfficialSplit:
        texts, answers = zip(*pairs, strict=True)
        return OfficialSplit(world.scenes(np.arange(len(pairs))), np.arange(len(pairs)), texts, answers, texts)

    train = rows(("a", "teal"), ("a", "blue"), ("b", "yes"), ("b", "no"), ("b", "yes"))
    test = rows(("a", "blue"), ("a", "teal"), ("unseen", "blue"), ("b", "yes"))
    assert text_only_answers(train, test) == ["blue", "blue", None, "yes"]


def test_import_reads_nothing_and_use_needs_no_torch() -> None:
    code = """
import sys
from theodolite.worlds.easy_vqa import data, world as easy_vqa
assert all(read.cache_info().currsize == 0 for read in (data.read_pictures, data.official_questions, data.derived_levels))
import numpy as np
world = easy_vqa.EasyVQA().correlate("shape", "colour", 0.9)
world.render(world.sample(5, np.random.default_rng(0)))
world.pairs(5, np.random.default_rng(0))
assert data.derived_levels.cache_info().currsize == 1
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_neighbouring_colours_go_with_each_shape(tied: EasyVQA) -> None:
    runs = tied.prior.correlations[0].describe(tied.space)
    assert runs == {"circle": ["black", "gray", "red"], "rectangle": ["green", "blue", "yellow"], "triangle": ["teal", "brown"]}
    follows = tied.prior.correlations[0].follows(tied.space)
    for shape, colour in product(range(3), range(8)):
        assert follows[shape, colour] == (colour * 3 // 8 == shape)


def test_policies_choose_among_the_official_questions(tied: EasyVQA) -> None:
    policy = tied.policy("shape:agree,colour:odd,colour")
    scenes = tied.sample_asked(60, policy, np.random.default_rng(0))
    rows = tied.official("train")
    official = set(zip(rows.picture.tolist(), rows.text.tolist(), strict=True))
    for name in ("shape", "colour"):
        texts = tied.wordings(tied.query(name), scenes)
        assert all((int(picture), text) in official for picture, found in zip(scenes.nuisance, texts, strict=True) for text in found)
    assert tied.wordings(tied.query("shape"), tied.scenes(np.array([4000])))[0] == tied.query("shape").wordings  # no training row


def test_a_policy_cannot_ask_what_a_question_presumes(world: EasyVQA) -> None:
    with pytest.raises(ValueError, match="only be asked of scenes that have its value"):
        world.policy("shape@colour=red")
