"""The plan of a survey: the same pairs for all policies, balanced wordings and orders, and plans written to disk and read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from theodolite.commands.world import write_world
from theodolite.measurement.pairs.plan import COLUMNS, NUM_TRAINING_SCENES, Plan, plan_gallery, plan_world
from theodolite.records.errors import BadInput
from theodolite.records.rows import NAMED
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.factors import Scenes
from theodolite.worlds.gallery import TABLE, Gallery
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.prior import Prior
from theodolite.worlds.shapes.world import SPACE, Shapes


class Coded(Shapes):
    """The shapes world with pictures that encode their scene byte by byte: levels, then the nuisance seed. Tests can decode them."""

    def correlate(self, cause: str, effect: str, strength: float) -> Coded:
        return Coded(self.prior.correlate(cause, effect, strength))

    def render(self, scenes: Scenes, size: int | None = None) -> np.ndarray:
        pictures = np.zeros((len(scenes), size or 64, size or 64, 3), dtype=np.uint8)
        pictures[:, 0, : len(SPACE.names), 0] = scenes.levels
        pictures[:, 1, :8, 0] = np.ascontiguousarray(scenes.nuisance).view(np.uint8).reshape(-1, 8)
        return pictures


def scenes_in(plan: Plan) -> Scenes:
    nuisance = np.ascontiguousarray(plan.pictures[:, 1, :8, 0]).view(np.int64)[:, 0]
    return Scenes(SPACE, plan.pictures[:, 0, : len(SPACE.names), 0].astype(np.int16), nuisance)


@pytest.fixture(scope="module")
def world() -> Coded:
    return Coded().correlate("shape", "colour", 0.9)


def planned(world: Coded, ask: str, num_scenes: int = 25, seed: int = 0) -> Plan:
    return plan_world(world, world.policy(ask), num_scenes, seed, 32)


def of_kind(plan: Plan, *kinds: str) -> pl.DataFrame:
    return plan.rows.filter(pl.col("kind").is_in(kinds))


# Pairs


def test_pairs_are_the_same_for_every_policy_and_strength(world: Coded) -> None:
    plans = [planned(world, ask) for ask in ("shape", "row:odd*3,tilt,letter", "shape=round,shape!=square,colour=red&size=small")]
    plans.append(planned(Coded(), "shape"))
    columns = ["scene", "factor", "value_before", "value_after", "picture_before", "picture_after"]
    first, *others = (
        [tuple(row) for row in of_kind(plan, "intervention", "nuisance").select(columns).unique().sort(columns).rows()] for plan in plans
    )
    assert len(first) == 25 * 11 and all(other == first for other in others)
    num_pictures = 25 * 12
    assert all((plan.pictures[:num_pictures] == plans[0].pictures[:num_pictures]).all() for plan in plans)
    assert (planned(world, "shape", seed=1).pictures[:num_pictures] != plans[0].pictures[:num_pictures]).any()


def test_rows_say_what_their_pictures_show(world: Coded) -> None:
    plan = planned(world, "shape,colour=red,colour=blue,row=top&tilt=upright")
    scenes = scenes_in(plan)
    looks = [scenes.scene(index) for index in range(len(scenes))]
    base: dict[int, int] = {}
    for row in of_kind(plan, "intervention", "nuisance", "paraphrase").iter_rows(named=True):
        before, after = looks[row["picture_before"]], looks[row["picture_after"]]
        changed = [name for name in SPACE.names if before.values[name] != after.values[name]]
        assert changed == ([row["factor"]] if row["factor"] else [])
        assert (before.nuisance == after.nuisance) == (row["kind"] != "nuisance")
        if row["factor"]:
            assert (row["value_before"], row["value_after"]) == (before.values[row["factor"]], after.values[row["factor"]])
        query = world.query(row["name"])
        for side, index in (("before", row["picture_before"]), ("after", row["picture_after"])):
            assert row[f"truth_{side}"] == query.choices[query.truth(scenes)[index]]
            assert row[f"question_{side}"] in query.wordings
        assert sorted(row["choices"]) == sorted(query.choices) and (row["query"], row["form"]) == (query.about, query.form)
        assert base.setdefault(row["scene"], row["picture_before"]) == row["picture_before"]
    assert plan.rows.schema == pl.Schema(dict(COLUMNS)) and plan.pair_kind == "exact"


def test_base_scenes_follow_the_independent_prior_and_training_scenes_do_not(world: Coded) -> None:
    plan = planned(world, "shape", num_scenes=300)
    scenes = scenes_in(plan)
    base, trained = scenes.take(np.arange(300)), scenes.take(np.arange(300 * 12, len(scenes)))
    assert len(trained) == NUM_TRAINING_SCENES
    assert world.prior.agrees(base).mean() == pytest.approx(0.25, abs=0.08)
    assert world.prior.agrees(trained).mean() == pytest.approx(0.925, abs=0.06)


def test_every_open_question_is_asked_of_every_pair_once(world: Coded) -> None:
    plan = planned(world, "shape,shape:odd,tilt")
    counts = of_kind(plan, "intervention", "nuisance").group_by("scene", "factor", "name").len()
    assert len(counts) == 25 * 11 * 2 and set(counts["len"]) == {1}


def test_pairs_ask_yes_no_questions_whose_truth_moves_as_often_as_not(world: Coded) -> None:
    every = ",".join(f"size={value}" for value in SPACE["size"].values)  # two truths in three move when a size does
    rows = of_kind(planned(world, every, num_scenes=300), "intervention")
    moves = rows.with_columns(moves=pl.col("truth_before") != pl.col("truth_after")).group_by("factor").agg(pl.col("moves").mean())
    shares = dict(moves.iter_rows())
    assert shares.pop("size") == pytest.approx(0.5, abs=0.08) and set(shares.values()) == {0}
    assert set(rows["name"]) == set(every.split(","))


# Wordings and orders


def test_wording_and_order_belong_to_the_scene_and_differ_between_scenes(world: Coded) -> None:
    plan = planned(world, "shape,row,colour=red,colour=blue", num_scenes=60)
    wordings: dict[tuple[str, str], set[int]] = defaultdict(set)
    orders: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    for (query, form, _), part in of_kind(plan, "intervention", "nuisance", "paraphrase").group_by("query", "form", "scene"):
        asked = {world.query(name).wordings.index(text) for name, text in part.select("name", "question_before").rows()}
        quiet = part.filter(pl.col("kind") != "paraphrase")
        order = {tuple(choices) for choices in part["choices"]}
        assert len(asked) == len(order) == 1 and (quiet["question_before"] == quiet["question_after"]).all()
        wordings[query, form] |= asked
        orders[query, form] |= order
    assert all(numbers == {0, 1, 2} for numbers in wordings.values())
    assert len(orders["shape", "open"]) > 15 and len(orders["colour", "yes_no"]) == 2


def test_wordings_are_the_same_whatever_else_is_asked(world: Coded) -> None:
    few, many = planned(world, "shape"), planned(world, "tilt,row,shape:odd")
    assert of_kind(few, "intervention", "nuisance", "paraphrase").equals(
        of_kind(many, "intervention", "nuisance", "paraphrase").filter(pl.col("name") == "shape")
    )


def test_a_paraphrase_differs_in_its_words_alone(world: Coded) -> None:
    rows = of_kind(planned(world, "shape,row,colour=red"), "paraphrase")
    assert len(rows) == 25 * 3
    assert (rows["question_before"] != rows["question_after"]).all()
    assert (rows["picture_before"] == rows["picture_after"]).all() and (rows["truth_before"] == rows["truth_after"]).all()
    for name, before, after in rows.select("name", "question_before", "question_after").rows():
        assert {before, after} <= set(world.query(name).wordings)
    assert (rows["factor"] == "").all()


# Training rows


@pytest.mark.parametrize("ask", ["shape", "shape:agree,colour:odd", "shape:round,colour=red:no", "row,row:odd"])
def test_training_rows_lie_inside_the_policy_s_region(world: Coded, ask: str) -> None:
    plan = planned(world, ask, num_scenes=3)
    scenes, policy = scenes_in(plan), world.policy(ask)
    rows = of_kind(plan, "training")
    for query in policy.queries:
        part = rows.filter(pl.col("name") == query.name)
        here = scenes.take(part["picture_before"].to_numpy())
        lines = [line for line in policy.lines if line.query.name == query.name]
        assert len(part) > 20 and np.any([line.inside(here, world.prior) for line in lines], axis=0).all()
        assert part["truth_before"].to_list() == [query.choices[level] for level in query.truth(here)]
        assert set(part["question_before"]) <= set(query.wordings) and len(set(part["question_before"])) > 1
    assert (rows["picture_before"] == rows["picture_after"]).all() and (rows["question_before"] == rows["question_after"]).all()


@pytest.mark.parametrize(("ask", "odd_frac"), [("row", 0.075), ("row,row:odd*4", 0.075 * 5 / 1.3)])
def test_training_rows_ask_of_each_region_as_often_as_the_policy_does(world: Coded, ask: str, odd_frac: float) -> None:
    odd = []
    for seed in range(8):
        plan = planned(world, ask, num_scenes=2, seed=seed)
        odd.append(~world.prior.agrees(scenes_in(plan).take(of_kind(plan, "training")["picture_before"].to_numpy())))
    assert np.mean(odd) == pytest.approx(odd_frac, abs=0.03)


def test_a_query_asked_of_no_scene_has_no_training_rows() -> None:
    world = Coded().correlate("shape", "colour", 1.0)
    assert set(of_kind(planned(world, "shape,colour:odd", num_scenes=3), "training")["name"]) == {"shape"}


def test_easy_vqa_plans_are_matched_and_its_training_pictures_are_others() -> None:
    world = EasyVQA().correlate("shape", "colour", 0.9)
    plan = plan_world(world, world.policy("shape"), 20, 0, 64)
    assert plan.pair_kind == "matched"
    rows = of_kind(plan, "intervention")
    assert set(rows["factor"]) == set(world.space.names) and rows["scene"].n_unique() == 20
    moved = rows.filter(pl.col("factor") == "shape")
    assert (moved["truth_before"] == moved["value_before"]).all() and (moved["truth_after"] == moved["value_after"]).all()
    still = rows.filter(pl.col("factor") != "shape")
    assert (still["truth_before"] == still["truth_after"]).all() and (still["picture_before"] != still["picture_after"]).all()
    seen = {picture.tobytes() for picture in plan.pictures[: plan.num_pair_pictures]}
    trained = {picture.tobytes() for picture in plan.pictures[of_kind(plan, "training")["picture_before"].to_numpy()]}
    assert len(trained) > 100 and not trained & seen


# Written and read again; faulty manifests are tested in test_manifest.py

ASK = "shape,colour=red"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shapes, Path]:
    world, out = Shapes(Prior(SPACE).correlate("shape", "colour", 0.9)), tmp_path_factory.mktemp("world") / "out"
    write_world(world, out, ASK, num_pictures=4, num_scenes=5, size=32, seed=3, overwrite=False)
    return world, out


def test_pairs_come_back_from_disk_as_they_were_planned(on_disk: tuple[Shapes, Path]) -> None:
    world, out = on_disk
    plan = plan_world(world, world.policy(ASK), 5, 3, 32)
    read = plan_gallery(read_manifest(out / "manifest.jsonl").gallery, 32)
    assert read.rows.drop(NAMED).schema == pl.Schema(dict(COLUMNS)) and read.pair_kind == "exact"
    assert read.rows.drop(NAMED).equals(of_kind(plan, "intervention", "nuisance", "paraphrase"))
    assert (read.pictures == plan.pictures[: plan.num_pair_pictures]).all()
    assert plan_gallery(read_manifest(out / "manifest.jsonl").gallery, 48).pictures.shape == (len(read.pictures), 48, 48, 3)


def test_matched_pairs_come_back_from_disk_as_matched(tmp_path: Path) -> None:
    world = EasyVQA()
    write_world(world, tmp_path / "w", "shape", num_pictures=0, num_scenes=8, size=64, seed=1, overwrite=False, pairs_only=True)
    plan, read = (
        plan_world(world, world.policy("shape"), 8, 1, 64),
        plan_gallery(read_manifest(tmp_path / "w" / "manifest.jsonl").gallery, 64),
    )
    pictures = ["picture_before", "picture_after"]
    expected = of_kind(plan, "intervention", "nuisance", "paraphrase")
    assert read.pair_kind == "matched"
    assert read.rows.drop(*pictures, *NAMED).equals(expected.drop(pictures))
    for side in pictures:
        assert (read.pictures[read.rows[side].to_numpy()] == plan.pictures[expected[side].to_numpy()]).all()


def test_scenes_and_questions_on_disk_are_those_of_the_world(on_disk: tuple[Shapes, Path]) -> None:
    world, out = on_disk
    scenes = world.sample(4, np.random.default_rng([3, 0]))
    table = pl.read_parquet(out / "scenes.parquet")
    assert table.drop("picture", "nuisance").to_dicts() == [dict(scenes.scene(index).values) for index in range(4)]
    assert (table["nuisance"].to_numpy() == scenes.nuisance).all()
    questions = pl.read_parquet(out / "questions.parquet").join(table, on="picture")
    assert len(questions) == 8
    for row in questions.iter_rows(named=True):
        red = "yes" if row["colour"] == "red" else "no"
        assert row["answer"] == (red if "red" in row["question"] else row["shape"])


# Galleries

ROW = (1, "colour", "red", "blue", "colour", "open", "colour", "Which?", "Which?", ["red", "blue"], "red", "blue", "b", "a")


def gallery(*rows: tuple[Any, ...]) -> Gallery:
    def render(names: Sequence[str], size: int) -> np.ndarray:
        return np.stack([np.full((size, size, 3), ord(name), dtype=np.uint8) for name in names])

    return Gallery("two", "matched", pl.DataFrame(list(rows), schema=dict(TABLE), orient="row"), render)


def test_rows_of_a_gallery_get_their_kind_from_what_changes() -> None:
    quiet = (1, "", None, None, "colour", "open", "colour", "Which?", "Which?", ["red", "blue"], "red", "red", "b", "c")
    worded = (1, "", None, None, "colour", "open", "colour", "Which?", "Which one?", ["red", "blue"], "red", "red", "b", "b")
    plan = plan_gallery(gallery(ROW, quiet, worded), 4)
    assert plan.rows.drop("path_before", "path_after").schema == pl.Schema(dict(COLUMNS))
    assert plan.rows.select("path_before", "path_after").rows() == [("b", "a"), ("b", "c"), ("b", "b")]
    assert plan.rows["kind"].to_list() == ["intervention", "nuisance", "paraphrase"]
    assert plan.rows.select("picture_before", "picture_after").rows() == [(1, 0), (1, 2), (1, 1)]
    assert plan.pictures[:, 0, 0, 0].tolist() == [ord(name) for name in "abc"]
    assert (plan.pair_kind, plan.num_pair_pictures) == ("matched", 3)


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(BadInput, match="two has no rows"):
        plan_gallery(gallery(), 4)


def test_a_gallery_that_would_not_fit_into_memory_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    many = gallery(ROW)
    monkeypatch.setattr("theodolite.measurement.pairs.plan.psutil.virtual_memory", lambda: SimpleNamespace(available=8 * 8 * 3 * 2))
    with pytest.raises(BadInput, match=r"2 pictures, which take .* survey a part"):
        plan_gallery(many, 8)
