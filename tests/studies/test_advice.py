"""The study advice: every arm asks as much, its further questions are as many as it says, and its claims can fail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.study_lines import line, lines
from theodolite.studies import advice, dose
from theodolite.studies.engine.study import conclude
from theodolite.worlds.registry import world_named

SEEDS = range(3)
RUNS = advice.advice_grid(SEEDS)
WORLD = world_named("shapes", 0.8)
NAMES = ("shape", "colour")


def expected(policy: str, query: str | None = None, *, odd: bool = False) -> float:
    """Expected number of questions a picture by a policy: of one query, or of all; of odd scenes alone, or of all."""
    scenes = WORLD.prior.table(NAMES)
    if odd:
        scenes = scenes * ~WORLD.prior.agreement(NAMES)
    asked = [each for each in WORLD.policy(policy).lines if query in (None, each.query.name)]
    return float(sum(np.sum(scenes * each.rate * each.inside_table(WORLD.prior, NAMES)) for each in asked))


@pytest.mark.parametrize(("way", "budget"), [(way, budget) for way, budgets in advice.BUDGETS.items() for budget in budgets])
def test_every_arm_asks_two_questions_a_picture_of_which_as_many_are_further_as_it_says(way: str, budget: int) -> None:
    policy = advice.advice_policy(way, budget)
    assert expected(policy) == pytest.approx(2, abs=1e-5)
    further = ",".join(advice.further_questions(way, budget))
    assert expected(further) * advice.NUM_PICTURES == pytest.approx(budget, rel=1e-4)
    share = {"advised": 1, "balanced": dose.odd_frac(), "random": dose.odd_frac() / 9}[way]
    assert expected(policy, "shape", odd=True) * advice.NUM_PICTURES == pytest.approx(budget * share, rel=1e-4)


def test_runs_differ_in_their_questions_alone() -> None:
    assert len({run.key for run in RUNS}) == len(RUNS) == 10 * len(SEEDS)
    assert len({(run.arm.recipe, run.arm.num_pictures, run.arm.strength, run.num_scenes) for run in RUNS}) == 1


@pytest.mark.parametrize(
    ("leaks", "number"),
    [
        ({10: 0.9, 1000: 0.05}, 10 ** (1 + 2 * 0.8 / 0.85)),
        ({10: 0.9, 100: 0.1, 1000: 0.0}, 100),
        ({10: 0.1, 100: 0.9}, 10),
        ({10: 0.9, 100: 0.2}, 100),
    ],
)
def test_the_number_needed_is_interpolated_and_never_beyond_what_was_asked(leaks: dict[int, float], number: float) -> None:
    assert advice.needed(leaks) == pytest.approx(math.log10(number))


def findings(leaks: dict[str, tuple[float, ...]]) -> dict[str, str]:
    def leak(name: str, seed: int) -> float:
        way, _, budget = name.partition("-")
        return leaks[way][advice.BUDGETS[way].index(int(budget))] - 0.002 * seed * (1 + list(leaks).index(way))

    made = lines(RUNS, lambda run: line(run, leak(run.arm.name, run.seed), 0.5))
    record = conclude(advice.ADVICE, RUNS, made, command="", quick=False)
    (figure,) = record.figures
    assert {point.series for point in figure.points} == set(advice.BUDGETS)
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_advice_does_as_said_and_fail_where_not() -> None:
    as_said = findings({"advised": (0.95, 0.6, 0.09, 0.05), "balanced": (0.95, 0.6, 0.09, 0.05), "random": (0.6, 0.4)})
    assert set(as_said.values()) == {"holds"} and len(as_said) == 4
    other = findings({"advised": (0.95, 0.8, 0.5, 0.4), "balanced": (0.2, 0.04, 0.03, 0.02), "random": (0.05, 0.02)})
    assert other["advised breaks"] == other["advised before balanced"] == other["only counterexamples count"] == "fails"
    worse = findings({"advised": (0.95, 0.8, 0.5, 0.05), "balanced": (0.95, 0.9, 0.8, 0.7), "random": (0.2, 0.02)})
    assert worse["balanced before random"] == "fails"


def test_a_quick_grid_judges_nothing_and_asks_advice_once() -> None:
    runs = advice.advice_grid(range(1), quick=True)
    record = conclude(advice.ADVICE, runs, lines(runs, lambda run: line(run, 0.5, 0.5)), command="", quick=True)
    assert record.claims == () and len(runs) == 2
