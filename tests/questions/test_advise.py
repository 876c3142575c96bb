"""Advice: greedy choice against every choice, the best split of a budget, the known answers, and what data say."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from itertools import combinations
from math import e
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from theodolite.commands.advise import advice_lines, advice_tables, advise_on
from theodolite.questions.advice.advise import advise_problem
from theodolite.questions.advice.greedy_cover import lazy_greedy, pair_cover
from theodolite.questions.advice.problem import correlated_factors, world_problem
from theodolite.questions.advice.water_filling import fair_shares, fill_water, total_bits
from theodolite.questions.coverage import Enumeration, coverage_of, measure_coverage
from theodolite.records.advice import Advice
from theodolite.records.errors import BadInput, UnknownName
from theodolite.worlds.factors import Factor, FactorSpace, Scenes
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, PolicyLine, Query
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import World


@cache
def shapes(strength: float) -> World:
    return world_named("shapes", strength)


def random_world(seed: int) -> tuple[Prior, tuple[Query, ...]]:
    """Three or four small factors, two of them tied, and queries with random answers on one or two of them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 4, size=int(rng.integers(3, 5)))
    space = FactorSpace(tuple(Factor(f"f{i}", tuple(f"v{j}" for j in range(size))) for i, size in enumerate(sizes)))
    prior = Prior(space).correlate("f0", "f1", float(rng.choice([0.0, 0.6, 0.95, 1.0])))
    queries = []
    for number in range(7):
        factors = tuple(space.names[i] for i in sorted(rng.choice(len(sizes), size=int(rng.integers(1, 3)), replace=False)))
        answers = rng.integers(0, 2, size=tuple(len(space[name].values) for name in factors))
        queries.append(Query(f"q{number}", "open", factors[0], ("?",), ("yes", "no"), factors, answers))
    return prior, tuple(queries)


def summed(prior: Prior, queries: tuple[Query, ...]) -> float:
    enumeration = Enumeration(prior, Policy(tuple(PolicyLine(query) for query in queries)))
    return sum(coverage_of(enumeration, name) for name in prior.space.names)


def plain_greedy(worth: np.ndarray, told: np.ndarray, known: np.ndarray, most: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(most):
        gains = [round(float(worth[row & ~known].sum()), 12) for row in told]
        best = int(np.argmax(gains))
        if gains[best] <= 1e-12:
            break
        chosen.append(best)
        known = known | told[best]
    return chosen


# The choice of queries


@pytest.mark.parametrize("seed", range(12))
def test_greedy_choice_covers_its_share_of_the_best_choice_and_lazy_is_plain(seed: int) -> None:
    prior, queries = random_world(seed)
    problem = world_problem(prior, queries, None, 1000)
    cover = pair_cover(problem.names, problem.weights, (), problem.candidates, prior.space.names)
    for most in (1, 2, 3):
        chosen = lazy_greedy(cover.worth, cover.distinguishes, cover.distinguished, most)
        assert [index for index, _ in chosen] == plain_greedy(cover.worth, cover.distinguishes, cover.distinguished, most)
        found = summed(prior, tuple(queries[index] for index, _ in chosen))
        assert sum(gain for _, gain in chosen) == pytest.approx(found, abs=1e-9)  # the cover is what is measured
        best = max(summed(prior, several) for several in combinations(queries, most))
        assert found >= (1 - 1 / e) * best - 1e-9


def test_greedy_choice_can_be_short_of_the_best_and_says_what_each_adds() -> None:
    # Six pairs; the large middle one is taken first, though the two others cover all.
    told = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]], dtype=bool)
    chosen = lazy_greedy(np.full(6, 1.0), told, np.zeros(6, dtype=bool), 2)
    assert chosen == [(2, 4.0), (0, 1.0)]
    assert lazy_greedy(np.full(6, 1.0), told, np.ones(6, dtype=bool), 2) == []


@pytest.mark.parametrize("seed", range(40))
def test_lazy_greedy_is_plain_greedy_on_random_covers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    told, worth = rng.random((15, 60)) < 0.2, rng.integers(1, 4, 60).astype(float)
    known = rng.random(60) < 0.1
    assert [index for index, _ in lazy_greedy(worth, told, known, 8)] == plain_greedy(worth, told, known, 8)


@pytest.mark.parametrize(
    "ask", ["shape:agree", "shape:odd,colour", "shape=round,shape=square:no", "row,shape:colour=red", "shape=round&colour=red"]
)
def test_the_cover_of_what_is_asked_is_the_measured_coverage(ask: str) -> None:
    world = shapes(0.8)
    problem = world_problem(world.prior, [world.query("shape"), world.query("colour")], world.policy(ask), 1000)
    covered = pair_cover(problem.names, problem.weights, problem.asked, (), world.space.names).covered()
    assert covered == pytest.approx(measure_coverage(world.prior, world.policy(ask)).coverage, abs=1e-9)


# The split of a budget


@pytest.mark.parametrize("seed", range(15))
def test_no_exchange_of_questions_betters_the_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 3)
    known, room = rng.choice([0.0, 5.0, 20.0], shape), rng.choice([1.0, 10.0, 100.0], shape)
    least = np.minimum(room, 0.5)
    budget = float(rng.uniform(0.1, 0.95)) * room.sum()
    added = fill_water(known, room, least, budget)
    assert added.sum() == pytest.approx(max(budget, 0), rel=1e-6)
    assert (added >= least - 1e-9).all() and (added <= room + 1e-9).all()
    best = total_bits(known + added)
    for source in np.ndindex(shape):
        for target in np.ndindex(shape):
            step = min(0.01, added[source] - least[source], room[target] - added[target])
            if source != target and step > 1e-6:
                other = added.copy()
                other[source] -= step
                other[target] += step
                assert total_bits(known + other) <= best + 1e-6


def test_a_budget_is_water_under_lids_and_ties_share_in_proportion() -> None:
    nothing = np.zeros((1, 4))
    room = np.array([[100.0, 10.0, 10.0, 10.0]])
    assert fill_water(nothing, room, nothing, 20.0) == pytest.approx(np.full((1, 4), 5.0), rel=1e-6)
    assert fill_water(nothing, room, nothing, 60.0) == pytest.approx(np.array([[30.0, 10, 10, 10]]), rel=1e-6)
    assert (fill_water(nothing, room, nothing, 500.0) == room).all()
    known = np.array([[20.0, 0.0]])
    assert fill_water(known, np.array([[50.0, 50.0]]), np.zeros((1, 2)), 30.0) == pytest.approx(np.array([[5.0, 25.0]]), rel=1e-6)
    two = np.array([[30.0, 30.0], [10.0, 10.0]])
    assert fill_water(np.zeros((2, 2)), two, np.zeros((2, 2)), 40.0) == pytest.approx(two / 2, rel=1e-6)
    assert fair_shares(np.array([5.0, 100.0, 100.0]), 65.0) == pytest.approx([5, 30, 30])
    assert total_bits(np.array([[3.0, 3.0], [5.0, 0.0]])) == pytest.approx(6)


# Known answers: shapes at strength 0.9, 12,000 pictures of which 900 are odd.


def odd_to_agree(advice: Advice) -> tuple[float, float]:
    world = shapes(0.9)
    rates = {ask.region: ask.rate for ask in world.policy(advice.policy or "").lines}
    return rates["odd"] * 900, rates["agree"] * 11_100


def test_a_thousand_questions_about_shape_ask_three_odd_scenes_to_one_agreeing() -> None:
    world = shapes(0.9)
    advice = advise_on("shapes", 1000, strength=0.9, about="shape")
    odd, agree = odd_to_agree(advice)
    assert (odd, agree) == (pytest.approx(750, abs=0.01), pytest.approx(250, abs=0.01))
    promised = {row.factor: row for row in advice.factors}["shape"]
    measured = measure_coverage(world.prior, world.policy(advice.policy or ""))
    assert promised.pressure_bits_after == pytest.approx(measured.pressure_bits["shape"], abs=1e-6)
    assert promised.coverage_after == pytest.approx(measured.coverage["shape"], abs=1e-6)
    assert 1.9 <= measured.pressure_bits["shape"] <= 2
    assert measure_coverage(world.prior, world.policy("shape*0.0833333")).pressure_bits["shape"] == pytest.approx(0.5032, abs=1e-4)
    assert measured.coverage["shape"] == pytest.approx(0.19)


@pytest.mark.parametrize(("policy", "low", "high"), [(None, 1.9, 2.0), ("shape*0.0833333", 0.35, 0.6)])
def test_the_questions_that_are_drawn_are_as_many_and_as_sharp_as_promised(policy: str | None, low: float, high: float) -> None:
    world = shapes(0.9)
    policy = policy or advise_on("shapes", 1000, strength=0.9, about="shape").policy or ""
    rng = np.random.default_rng(7)
    scenes = world.sample(12_000, rng)
    drawn = world.policy(policy).draw(scenes, world.prior, rng)
    asked = np.array([len(queries) for queries in drawn])
    # 750 questions are drawn of odd scenes, whose number varies by 29: one in a thousand misses by more than 100.
    assert abs(asked.sum() - 1000) < 100 and asked.max() == 1
    shape, colour = (scenes.of_factor(name)[asked > 0] for name in ("shape", "colour"))
    table = np.zeros((4, 4))
    np.add.at(table, (colour, shape), 1)
    assert low <= total_bits(table) / table.sum() <= high


def test_where_odd_scenes_run_out_all_are_asked_and_the_entropy_under_the_lids_is_reached() -> None:
    advice = advise_on("shapes", 3000, strength=0.9, about="shape")
    odd, agree = odd_to_agree(advice)
    assert (odd, agree) == (pytest.approx(900), pytest.approx(2100, abs=0.02))
    (row,) = advice.queries
    assert row.bits == pytest.approx(-0.7 * np.log2(0.7) - 0.3 * np.log2(0.1), abs=1e-5)
    assert row.num_balanced == pytest.approx(1200) and row.num_questions == pytest.approx(3000, abs=0.1)
    assert any("equally likely up to 1,200 questions" in line for line in advice_lines(advice))
    everything = advise_on("shapes", 50_000, strength=0.9, about="shape")
    assert everything.policy == "shape" and everything.num_questions == pytest.approx(12_000)
    assert any("38,000 questions are left over" in line for line in advice_lines(everything))
    twice = advise_on("shapes", 3000, strength=0.9, about="shape", repeats=2.0)
    assert twice.queries[0].num_balanced == pytest.approx(2400)
    assert twice.queries[0].bits > row.bits


def test_what_is_asked_already_is_completed_not_repeated() -> None:
    world = shapes(0.9)
    advice = advise_on("shapes", 1000, strength=0.9, about="shape", ask="shape:agree*0.025")
    together = world.policy(advice.together or "")
    assert advice.asked == "shape:agree*0.025" and str(together) == f"{advice.asked},{advice.policy}"
    rates = {ask.region: ask.rate for ask in world.policy(advice.policy or "").lines}
    # 277.5 agreeing ones are asked already, so 832.5 odd ones balance them; the rest keeps all equal, until odd ones run out.
    assert rates["odd"] == 1 and rates["agree"] * 11_100 == pytest.approx(100, abs=0.1)
    assert advice.factors[0].pressure_bits_after == pytest.approx(measure_coverage(world.prior, together).pressure_bits["shape"], abs=1e-6)
    assert advice.factors[0].cause == "confounded" and advice.factors[0].cure == "questions"
    full = advise_on("shapes", 1000, strength=0.9, about="shape", ask="shape")
    assert full.policy is None and full.num_questions == 0 and full.factors[0].cure is None
    assert any("no further question" in line for line in advice_lines(full))
    again = advise_on("shapes", 900, strength=0.9, about="shape", ask="shape", repeats=2.0)
    assert again.policy == "shape:odd" and again.factors[0].pressure_bits_after == pytest.approx(0.8042, abs=1e-4)


def test_a_factor_that_nobody_asks_is_named_first() -> None:
    asked = "shape,colour:agree,size,column,row,texture,ground,tilt"
    advice = advise_on("shapes", 1000, strength=0.9, ask=asked)
    assert [(row.query, row.unasked) for row in advice.queries] == [("letter", True), ("colour", True)]
    assert [row.factor for row in advice.factors][:2] == ["letter", "colour"]
    found = {row.factor: row for row in advice.factors}
    assert (found["letter"].cause, found["letter"].cure) == ("unasked", "questions")
    assert (found["sheen"].cause, found["sheen"].cure) == ("unasked", "none")
    partly = advise_on("shapes", 1000, strength=0.9, ask=asked.replace("colour:agree", "colour:odd"), about="colour,letter")
    assert [(row.query, row.unasked) for row in partly.queries] == [("letter", True), ("colour", False)]
    # Letter would gain 0.5 and shape only 0.19, but of letter something is known.
    little = advise_on("shapes", 1000, strength=0.9, ask="letter=E", about="letter,shape")
    assert [(row.query, row.coverage_gain) for row in little.queries] == [("shape", 0.19), ("letter", 0.5)]
    assert [row.factor for row in little.factors] == ["shape", "letter"]
    measured = measure_coverage(shapes(0.9).prior, shapes(0.9).policy(advice.together or ""))
    for name, row in found.items():
        assert row.coverage_after == pytest.approx(measured.coverage[name], abs=1e-6)
        assert row.pressure_bits_after == pytest.approx(measured.pressure_bits[name], abs=1e-6)


def test_at_strength_one_no_question_helps_and_the_scenes_that_would_are_named() -> None:
    advice = advise_on("shapes", 1000, strength=1.0, about="shape")
    assert advice.policy is None and advice.num_questions == 0
    (row,) = advice.factors
    assert (row.cause, row.cure, row.coverage_most) == ("confounded", "pictures", 0)
    assert [(scene.where, scene.to) for scene in advice.scenes] == [
        (("colour=red",), ("square", "triangular", "crossed")),
        (("colour=yellow",), ("round", "triangular", "crossed")),
        (("colour=blue",), ("round", "square", "crossed")),
        (("colour=green",), ("round", "square", "triangular")),
    ]
    # With them, three odd to one agreeing can be asked: 62.5 of each kind make 1,000.
    assert {scene.num_each for scene in advice.scenes} == {63}
    both = advise_on("shapes", 1000, strength=1.0)
    assert {scene.factor for scene in both.scenes} == {"shape", "colour"}
    assert {row.factor for row in both.queries} == set(shapes(1.0).space.nameable) - {"shape", "colour"}
    assert {row.factor for row in both.factors if row.cure == "none"} == {"sheen"}


def test_regions_finer_than_agreement_carry_the_advice_where_runs_differ_in_length() -> None:
    world = world_named("easy_vqa", 0.9)
    advice = advise_on("easy_vqa", 20, strength=0.9, about="shape")
    policy = world.policy(advice.policy or "")
    assert str(policy) == advice.policy and "&shape=triangle" in advice.policy
    measured = measure_coverage(world.prior, policy)
    assert measured.pressure_bits["shape"] == pytest.approx(np.log2(3), abs=1e-4)
    assert advice.factors[0].pressure_bits_after == pytest.approx(measured.pressure_bits["shape"], abs=1e-6)
    assert measured.pressure_bits["shape"] > measure_coverage(world.prior, world.policy("shape:agree,shape:odd*20")).pressure_bits["shape"]
    with pytest.raises(BadInput, match="ask for no more"):
        advise_on("easy_vqa", 20, strength=0.9, pictures=3999)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_promised_is_what_the_policy_measures_in_random_worlds(seed: int) -> None:
    prior, queries = random_world(seed)
    known = Policy((PolicyLine(queries[0], "yes", 0.2), PolicyLine(queries[1], "f0=v0", 0.3)))
    advice = advise_problem(world_problem(prior, queries, known, 500), 150, prior.space.names, "random")
    by_name = {query.name: query for query in queries}
    together = Policy.parse(advice.together or "", by_name.__getitem__)
    measured = measure_coverage(prior, together)
    assert advice.num_questions <= 150.01
    for row in advice.factors:
        assert row.coverage_after == pytest.approx(measured.coverage[row.factor], abs=2e-6)
        assert row.pressure_bits_after == pytest.approx(measured.pressure_bits[row.factor], abs=1e-4)
        assert row.coverage_before - 1e-9 <= row.coverage_after <= row.coverage_most + 1e-9


def test_ties_are_followed_along_a_chain() -> None:
    prior = shapes(0.9).prior.correlate("colour", "row", 0.8)
    names = ("shape", "colour", "size", "row")
    table = np.broadcast_to(prior.table(names), (4, 4, 3, 4))
    assert correlated_factors(np.array(table), names, "shape", 1e-9, 8) == ["colour"]
    assert set(correlated_factors(np.array(table), names, "colour", 1e-9, 8)) == {"shape", "row"}
    assert correlated_factors(np.array(table), names, "size", 1e-9, 8) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget is 0 questions; give 1 or more"),
        ({"about": "shade"}, "no factor is called 'shade'"),
        ({"pictures": 0}, "the number of pictures is 0; give 1 or more"),
        ({"repeats": 0.0}, "repeats is 0.0"),
        ({"factors": "shape"}, "--factors names columns"),
        ({"subject": "none.parquet", "ask": "shape"}, "--ask is for worlds"),
    ],
)
def test_advice_that_cannot_be_given_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        advise_on(**{"subject": "shapes", "budget": 100, **options})
    assert issubclass(UnknownName, BadInput)


# Data


def recorded(path: Path, strength: float, policy: str, num: int, *, noise: bool = False) -> str:
    """A table of questions asked by a policy, with some factors as columns; unasked examples have a row, too."""
    world, rng = shapes(strength), np.random.default_rng(3)
    scenes: Scenes = world.sample(num, rng)
    rows = []
    for index, queries in enumerate(world.policy(policy).draw(scenes, world.prior, rng)):
        values = {name: str(scenes.scene(index).values[name]) for name in ("shape", "colour", "size")}
        one = scenes.take(np.array([index]))
        asked = [(query.name, query.choices[int(query.truth(one)[0])]) for query in queries] or [(None, None)]
        asked += [("guess", str(rng.integers(2)))] if noise else []
        rows += [{"example": index, "query": query, "answer": answer, **values} for query, answer in asked if query or not noise]
    pl.DataFrame(rows, schema_overrides={"query": pl.String, "answer": pl.String}).write_parquet(path)
    return str(path)


def test_data_are_advised_as_the_world_that_they_came_from(tmp_path: Path) -> None:
    path = recorded(tmp_path / "asked.parquet", 0.9, "shape:agree*0.02", 3000)
    advice = advise_on(path, 200, about="shape")
    (row,) = advice.queries
    assert row.query == "shape" and row.unasked and row.num_questions == pytest.approx(200, abs=0.5)
    # About 55 agreeing ones are asked; the others can now be balanced up to the 18 or so of each odd kind.
    assert row.bits >= 1.85 and advice.together is None
    (factor,) = advice.factors
    assert factor.coverage_before == 0 and factor.cause == "confounded" and factor.cure == "questions"
    assert factor.coverage_after == pytest.approx(0.19, abs=0.04) and factor.pressure_bits_after > 1.7


def test_data_say_what_nothing_recorded_can_ask_and_what_has_no_answer_by_its_factors(tmp_path: Path) -> None:
    path = recorded(tmp_path / "asked.parquet", 1.0, "shape*0.5", 2000, noise=True)
    advice = advise_on(path, 300)
    found = {row.factor: row for row in advice.factors}
    assert advice.undetermined == ("guess",)
    assert (found["shape"].cause, found["shape"].cure) == ("confounded", "pictures")
    assert found["size"].cure == found["colour"].cure == "new questions"
    assert [(scene.factor, scene.where) for scene in advice.scenes] == [
        ("shape", (f"colour={value}",)) for value in sorted(shapes(1.0).space["colour"].values)
    ]
    assert all(len(scene.to) == 3 for scene in advice.scenes)


# The record and the terminal


def test_advice_is_written_shown_and_repeats_to_the_byte_without_torch() -> None:
    code = (
        "import sys; from theodolite.commands.advise import advise_on;"
        "print(advise_on('shapes', 1000, strength=1.0, ask='row').model_dump_json()); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, torch = done.stdout.split("\n")[:2]
    here = advise_on("shapes", 1000, strength=1.0, ask="row")
    assert torch == "False" and text == here.model_dump_json()
    assert Advice(**json.loads(text)) == here
    titles = [str(table.title) for table in advice_tables(here)]
    assert len(titles) == 3 and titles[2].startswith("Scenes to add")
    assert any("no question can name sheen" in line for line in advice_lines(here))
