"""Coverage and pressure from records: closed forms, and how often the intervals hold the truth that enumeration gives."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from io import StringIO
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from scipy import stats

from theodolite.commands.data_tables import data_coverage_table, data_query_table
from theodolite.questions.annotated import Annotated, annotate
from theodolite.questions.conditional_entropy import Outcomes, cells, select_context
from theodolite.questions.coverage import measure_coverage
from theodolite.questions.matched_pairs import coverage_estimate, match_pairs, measure_data_coverage, recorded_table
from theodolite.questions.pressure import pressure_estimate, pressure_gaps
from theodolite.records.data_coverage import DataCoverage
from theodolite.records.part import Estimate
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

FACTORS = ("shape", "colour", "row")
NUM_DRAWS = 200


@cache
def world(strength: float) -> World:
    return Shapes().correlate("shape", "colour", strength)


def records(strength: float, ask: str, num_scenes: int, rng: np.random.Generator, noise: float = 0.0) -> pl.DataFrame:
    """What an annotated data set of a world would hold; `noise` answers are drawn at random instead."""
    here = world(strength)
    policy, scenes = here.policy(ask), here.sample(num_scenes, rng)
    asked = policy.draw(scenes, here.prior, rng)
    truth = {query.name: query.truth(scenes) for query in policy.queries}
    rows = [(index, query.name, query.choices[truth[query.name][index]]) for index, queries in enumerate(asked) for query in queries]
    if noise:
        choices = {query.name: query.choices for query in policy.queries}
        rows = [(index, name, str(rng.choice(choices[name])) if rng.random() < noise else answer) for index, name, answer in rows]
    nothing = [(index, None, None) for index, queries in enumerate(asked) if not queries]
    levels = {name: np.array(here.space[name].values)[scenes.of_factor(name)] for name in FACTORS}
    annotations = pl.DataFrame({"example": np.arange(num_scenes), **levels})
    schema = {"example": pl.Int64, "query": pl.String, "answer": pl.String}
    return pl.DataFrame([*rows, *nothing], schema=schema, orient="row").join(annotations, on="example")


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


# Intervals against enumeration. Pairs of (number, factor) that lie away from 0 and from the most that is possible are `inner`.

WORLDS = [
    (0.9, "shape", 500, {("coverage", "shape"), ("pressure", "shape")}),
    (0.5, "shape=round,colour:odd", 500, {("coverage", "shape"), ("coverage", "colour"), ("pressure", "shape")}),
    (0.9, "shape,shape:odd*2,colour:odd", 1000, {("coverage", "shape"), ("coverage", "colour"), ("pressure", "shape")}),
    (0.9, "shape*0.4,row", 600, {("coverage", "shape")}),
]


def intervals(table: Annotated, rng: np.random.Generator) -> dict[tuple[str, str], tuple[float, float]]:
    gaps = pressure_gaps(table, rng)
    answers = [recorded_table(table, query).answer for query in range(len(table.queries))]
    found = {}
    for factor, name in enumerate(FACTORS):
        covered = coverage_estimate(match_pairs(table, answers, factor), len(table.values[factor]), 0.9)
        assert covered is not None
        found["coverage", name] = ends(covered)
        found["pressure", name] = ends(pressure_estimate(gaps, factor, table, 0.9))
    return found


@pytest.mark.parametrize(("strength", "ask", "num_scenes", "inner"), WORLDS)
def test_90_percent_intervals_hold_the_enumerated_truth(strength: float, ask: str, num_scenes: int, inner: set[tuple[str, str]]) -> None:
    exact = measure_coverage(world(strength).prior, world(strength).policy(ask))
    inside = {(what, name): 0 for what in ("coverage", "pressure") for name in FACTORS}
    for draw in range(NUM_DRAWS):
        rng = np.random.default_rng([41, num_scenes, draw])
        for (what, name), (low, high) in intervals(annotate(records(strength, ask, num_scenes, rng)), rng).items():
            truth = (exact.coverage if what == "coverage" else exact.pressure_bits)[name]
            assert low < high and low >= 0 and (what == "pressure" or high <= 1)
            inside[what, name] += low - 1e-9 <= truth <= high + 1e-9
    print(ask, {key: count / NUM_DRAWS for key, count in inside.items()})
    assert min(inside.values()) >= 0.85 * NUM_DRAWS, inside
    assert all(inside[key] <= 0.97 * NUM_DRAWS for key in inner), inside


# Bias


def plug_in_pressure(table: Annotated, factor: int) -> float:
    """H(A | Z_-k) - H(A | Z) from shares of the sample, in bits, for one query."""

    def entropy(context: tuple[int, ...]) -> float:
        cell = cells(table.levels[table.example], context)
        joint = np.bincount(cell * len(table.answers) + table.answer)
        return float(stats.entropy(joint, base=2) - stats.entropy(np.bincount(cell), base=2))

    everything = tuple(range(len(table.factors)))
    return entropy(tuple(column for column in everything if column != factor)) - entropy(everything)


def plug_in_coverage(table: Annotated, factor: int) -> float:
    """1 - sum of squared shares within strata, relative to the best: coverage where the factor itself is asked of all."""
    stratum = cells(table.levels, tuple(column for column in range(len(table.factors)) if column != factor))
    counts = np.zeros((int(stratum.max()) + 1, len(table.values[factor])))
    np.add.at(counts, (stratum, table.levels[:, factor]), 1)
    size = counts.sum(axis=1)
    return float((size * (1 - (counts**2).sum(axis=1) / size**2)).sum() / size.sum() / (1 - 1 / len(table.values[factor])))


def away(errors: list[float]) -> float:
    """How many standard errors the mean error is from 0."""
    return abs(float(np.mean(errors))) / float(stats.sem(errors))


def test_the_bias_of_plugging_in_shares_is_gone_at_small_n() -> None:
    exact = measure_coverage(world(0.9).prior, world(0.9).policy("shape"))
    errors: dict[str, list[float]] = {"pressure": [], "plug-in pressure": [], "coverage": [], "plug-in coverage": []}
    for draw in range(NUM_DRAWS):
        rng = np.random.default_rng([42, draw])
        table = annotate(records(0.9, "shape", 300, rng))
        matches = match_pairs(table, [recorded_table(table, 0).answer], 0)
        errors["pressure"].append(float(pressure_gaps(table, rng).bits[:, 0].mean()) - exact.pressure_bits["shape"])
        errors["plug-in pressure"].append(plug_in_pressure(table, 0) - exact.pressure_bits["shape"])
        errors["coverage"].append(float(matches.distinguished_frac.mean()) / 0.75 - exact.coverage["shape"])
        errors["plug-in coverage"].append(plug_in_coverage(table, 0) - exact.coverage["shape"])
    print({key: (np.mean(value), away(value)) for key, value in errors.items()})
    assert away(errors["pressure"]) < 2 and away(errors["coverage"]) < 2
    assert away(errors["plug-in pressure"]) > 10 and np.mean(errors["plug-in pressure"]) < -0.05
    assert away(errors["plug-in coverage"]) > 3 and np.mean(errors["plug-in coverage"]) < -0.005


@pytest.mark.parametrize(("size", "chance"), [(12, 0.5), (20, 0.3), (40, 0.05), (60, 0.03)])
def test_the_expected_surprise_of_counts_is_the_entropy(size: int, chance: float) -> None:
    """Over every count that a cell of two outcomes can have, each with its probability; plugging in shares falls short by 1 / (2 N)."""
    ours = shares = 0.0
    for hits in range(size + 1):
        outcome = (np.arange(size) < hits).astype(int)
        weight = float(stats.binom.pmf(hits, size, chance))
        ours += weight * float(Outcomes(np.zeros((size, 1), dtype=int), outcome, np.arange(size)).surprise(()).loss.mean())
        shares += weight * float(stats.entropy([hits, size - hits]))
    truth = float(stats.entropy([chance, 1 - chance]))
    assert abs(ours - truth) < 0.25 * abs(shares - truth)


def test_noisy_answers_take_from_pressure_what_they_take_from_information() -> None:
    """Closed form: the answer is the shape but in a tenth of rows a guess; colour follows the shape at strength 0.9."""
    tied = 0.9 * np.eye(4) + 0.1 / 4
    heard = 0.9 * np.eye(4) + 0.1 / 4
    truth = float(stats.entropy(tied[0] @ heard, base=2) - stats.entropy(heard[0], base=2))
    found = []
    for draw in range(40):
        rng = np.random.default_rng([43, draw])
        table = annotate(records(0.9, "shape", 500, rng, noise=0.1))
        found.append(pressure_gaps(table, rng).bits.mean(axis=0) - np.array([truth, 0, 0]))
    errors = np.array(found)
    assert (np.abs(errors.mean(axis=0)) < 3 * stats.sem(errors, axis=0)).all()
    assert abs(truth - 0.5032) > 5 * stats.sem(errors, axis=0)[0]  # so the test would see it if noise were overlooked


# What is found in the records


def test_questions_that_are_asked_of_a_region_only_are_not_taken_for_gaps_by_chance() -> None:
    rng = np.random.default_rng(3)
    table = annotate(records(0.9, "shape:agree,row*0.2", 1000, rng))
    row, shape = (recorded_table(table, query) for query in range(2))
    assert table.queries == ("row", "shape")
    assert (shape.depends_on, shape.asked_by) == ((0,), (0, 1))
    assert (row.depends_on, row.asked_by) == ((2,), ())
    assert (row.answer >= 0).all() and 0.05 < float((shape.answer < 0).mean()) < 0.1
    assert match_pairs(table, [shape.answer, row.answer], 0).distinguished_frac.max() == 0  # alike in colour, both agree: alike in shape


def test_a_dependence_on_two_factors_that_neither_shows_alone_is_found() -> None:
    levels = np.random.default_rng(4).integers(0, 2, (200, 4))
    outcomes = Outcomes(levels, levels[:, 1] ^ levels[:, 3], np.arange(200))
    assert select_context(outcomes, range(4)) == (1, 3)
    assert select_context(Outcomes(levels, np.random.default_rng(5).integers(0, 2, 200), np.arange(200)), range(4)) == ()


def test_matches_are_counted_as_every_pair_by_hand() -> None:
    rng = np.random.default_rng(6)
    table = annotate(records(0.5, "shape=round*0.5,colour:odd", 60, rng))
    answers = [recorded_table(table, query).answer for query in range(2)]
    for factor in range(3):
        rest = np.delete(table.levels, factor, axis=1)
        alike = [(i, j) for i, j in combinations(range(60), 2) if (rest[i] == rest[j]).all()]
        told = {(i, j): any(a[i] != a[j] and a[i] >= 0 and a[j] >= 0 for a in answers) for i, j in alike}
        expected = [sum(told[pair] for pair in pairs) / len(pairs) for i in range(60) if (pairs := [pair for pair in alike if i in pair])]
        assert sorted(match_pairs(table, answers, factor).distinguished_frac) == pytest.approx(sorted(expected))


def test_factors_too_many_to_match_leave_pressure_and_take_coverage() -> None:
    """Ten noise columns: no cell of all factors holds two examples, so everything backs off to what was found to matter."""
    rng = np.random.default_rng(7)
    table = records(0.9, "shape", 600, rng)
    table = table.with_columns(**{f"noise {i}": pl.Series(rng.integers(0, 4, len(table))) for i in range(10)})
    found = {row.factor: row for row in measure_data_coverage(table, None, rng, 0.95).factors}
    low, high = ends(found["shape"].pressure_bits)
    assert low < 0.5032 < high < 0.75 and low > 0.3
    for name in ("colour", "row", "noise 0"):
        assert ends(found[name].pressure_bits)[0] == 0 < ends(found[name].pressure_bits)[1] < 0.1
    assert found["shape"].coverage is None and found["shape"].matched_frac < 0.01


def test_rows_repeated_within_their_examples_change_nothing() -> None:
    table = records(0.9, "shape,row", 400, np.random.default_rng(8), noise=0.05)
    once, more = (measure_data_coverage(t, None, np.random.default_rng(0), 0.9) for t in (table, pl.concat([table] * 3)))
    assert more.num_rows == 3 * once.num_rows and more.num_examples == once.num_examples
    for one, other in zip(once.factors, more.factors, strict=True):
        assert (other.coverage, other.asked_by) == (one.coverage, one.asked_by)
        assert other.pressure_bits.value == pytest.approx(one.pressure_bits.value, abs=2e-3)
        assert ends(other.pressure_bits) == pytest.approx(ends(one.pressure_bits), abs=2e-3)


def test_answers_that_never_vary_leave_room_for_what_was_not_seen() -> None:
    for number, most in ((100, 0.4), (1000, 0.06)):
        table = pl.DataFrame({"query": ["is it?"] * number, "answer": ["yes"] * number, "shape": ["round", "square"] * (number // 2)})
        (found,) = measure_data_coverage(table, None, np.random.default_rng(0), 0.9).factors
        assert found.coverage is not None
        for estimate in (found.coverage, found.pressure_bits):
            assert estimate.value == 0 and ends(estimate)[0] == 0 < ends(estimate)[1] < most


# The record


def measured() -> DataCoverage:
    return measure_data_coverage(records(0.9, "shape:agree,row", 300, np.random.default_rng(9)), None, np.random.default_rng(1), 0.9)


def test_a_record_repeats_to_the_byte_and_its_tables_print() -> None:
    result = measured()
    assert result.model_dump_json() == measured().model_dump_json()
    console = Console(width=160, file=StringIO())
    for table in (data_coverage_table(result), data_query_table(result)):
        console.print(table)
    assert isinstance(console.file, StringIO) and "shape, colour" in console.file.getvalue()
    assert [row.factor for row in result.factors] == list(FACTORS)
    assert result.factors[2].asked_by == ("row",) and result.queries[1].asked_by == ("shape", "colour")


def test_nothing_here_needs_torch() -> None:
    code = "import sys, theodolite.questions.matched_pairs, theodolite.commands.data_tables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
