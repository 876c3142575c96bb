"""The study dose: all arms ask as much about shape, pressure rises with the dose, and its claims can fail."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from helpers.study_lines import line, lines
from helpers.study_records import moved
from theodolite.data.examples import draw_questions
from theodolite.questions.coverage import asked_fracs, measure_coverage
from theodolite.records.coverage import Coverage
from theodolite.records.study import GridRun, PredictedByCoverage
from theodolite.studies import dose, flip
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import conclude
from theodolite.worlds.registry import world_named

WORLD = world_named("shapes", 0.8)
ARMS = {run.arm.name: run.arm for run in dose.dose_grid(range(1))}


def covered(policy: str) -> Coverage:
    return measure_coverage(WORLD, policy)


def test_every_arm_asks_two_questions_a_picture_and_as_much_about_shape() -> None:
    scenes = WORLD.sample(400, np.random.default_rng(0))
    for name, arm in ARMS.items():
        policy = WORLD.policy(arm.policy)
        assert np.allclose(policy.rates(scenes, WORLD.prior).sum(0), 2), name
        assert {len(items) for items in draw_questions(WORLD, scenes, policy, 0)} == {2}, name
        assert asked_fracs(WORLD.prior, policy)["shape"] == pytest.approx(0.425, abs=1e-9), name


def test_the_dose_is_the_share_of_odd_scenes_that_are_asked() -> None:
    scenes = WORLD.sample(20_000, np.random.default_rng(1))
    odd = ~WORLD.prior.agrees(scenes)
    assert odd.mean() == pytest.approx(dose.odd_frac(), abs=0.01)
    for number, kinds in ((Fraction(1, 10), ("dose", "context")), (Fraction(1, 3), ("dose",))):
        for kind in kinds:
            policy = WORLD.policy(ARMS[dose.dose_arm(number, kind)].policy)
            shape = [place for place, asked in enumerate(policy.lines) if asked.query.name == "shape"]
            rate = policy.rates(scenes, WORLD.prior)[shape].sum(0)[odd].mean()
            assert rate == pytest.approx(float(number), abs=0.02), (number, kind)


def test_pressure_rises_with_the_dose_and_coverage_is_of_two_values() -> None:
    found = [covered(ARMS[dose.dose_arm(each)].policy) for each in dose.ALL_DOSES]
    bits, proxies = [each.pressure_bits["shape"] for each in found], [each.proxy_bits["colour->shape"] for each in found]
    assert bits == sorted(bits) and len(set(bits)) == len(bits) and bits[0] == 0
    assert proxies == sorted(proxies, reverse=True) and proxies[0] == pytest.approx(2)
    assert {round(each.coverage["shape"], 9) for each in found} == {0.0, 0.36}, "coverage counts whether a scene is asked, not how often"


def test_one_context_has_the_proxy_of_its_dose_and_a_coverage_that_rises_with_it() -> None:
    coverages = []
    for each in dose.CONTEXT_DOSES:
        context, plain = covered(ARMS[dose.dose_arm(each, "context")].policy), covered(ARMS[dose.dose_arm(each)].policy)
        assert context.proxy_bits["colour->shape"] == pytest.approx(plain.proxy_bits["colour->shape"])
        assert 0 < context.coverage["shape"] < plain.coverage["shape"]
        coverages.append(context.coverage["shape"])
    assert coverages == sorted(coverages) and len(set(coverages)) == len(coverages)


def test_dose_0_is_the_agree_arm_of_the_flip_and_long_arms_see_the_same_pictures() -> None:
    plain = next(run.arm for run in flip.first_grid(range(1)) if run.arm.name == "agree" and run.arm.strength == 0.8)
    assert (ARMS["dose-0"].policy, ARMS["dose-0"].recipe) == (plain.policy, plain.recipe)
    long = ARMS["long-1in30"]
    assert (long.num_pictures, long.policy) == (ARMS["dose-1in30"].num_pictures, ARMS["dose-1in30"].policy)
    assert long.recipe.steps == 8 * ARMS["dose-1in30"].recipe.steps


def made_line(run: Run, leak_at: dict[str, float]) -> GridRun:
    """A line with the coverage of its policy and a given leak by arm."""
    found = covered(run.arm.policy)
    told = PredictedByCoverage(
        coverage=found.coverage, coverage_limit={}, reach={}, pressure_bits=found.pressure_bits, proxy_bits={}, asked_frac={"shape": 0.4},
    )  # fmt: skip
    leak = min(1.0, leak_at[run.arm.name] + 0.002 * run.seed)
    made = line(run, leak, 1 - leak)
    return made.model_copy(
        update={"foretold": told, "cells": (moved("colour", "shape", False, leak), moved("shape", "shape", True, 1 - leak))}
    )


def findings(leak_at: dict[str, float]) -> dict[str, str]:
    runs = dose.dose_grid(range(4))
    made = lines(runs, lambda run: made_line(run, leak_at))
    record = conclude(dose.DOSE, runs, made, command="", quick=False)
    assert record.figures[0].name == "dose"
    return {claim.name: claim.finding for claim in record.claims}


def leaks(plain: list[float], long: float, context: float) -> dict[str, float]:
    named = {dose.dose_arm(each): leak for each, leak in zip(dose.ALL_DOSES, plain, strict=True)}
    named |= {dose.dose_arm(each, "long"): long for each in dose.LONG_DOSES}
    return named | {dose.dose_arm(each, "context"): context for each in dose.CONTEXT_DOSES}


def test_the_claims_hold_where_leak_falls_with_the_dose_and_fail_where_it_does_not() -> None:
    graded = findings(leaks([0.98, 0.95, 0.9, 0.8, 0.42, 0.1, 0.03], long=0.2, context=0.9))
    assert graded["dose 0"] == graded["break"] == graded["steps at 1in30"] == "holds"
    assert graded["graded"] == graded["context"] == "holds"
    assert [graded[f"broken at {name}"] for name in ("1in1000", "1in100", "1in30", "1in3")] == ["fails", "fails", "holds", "holds"]
    flat = findings(leaks([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96], long=0.93, context=0.5))
    assert flat["context"] == flat["steps at 1in30"] == flat["broken at 1in3"] == "fails"
    late = findings(leaks([0.98, 0.97, 0.96, 0.95, 0.94, 0.9, 0.3], long=0.93, context=0.9))
    assert late["break"] == "fails" and late["broken at 1in3"] == "holds"
    step = findings(leaks([0.95, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05], long=0.05, context=0.05))
    assert step["graded"] == "fails", "two values of coverage say it all"


def test_the_break_is_where_the_leak_crosses_the_line() -> None:
    def at(*leaks: float) -> float:
        return dose.break_of(dict(zip(dose.ALL_DOSES, leaks, strict=True)))

    assert at(0.9, 0.9, 0.9, 0.9, 0.9, 0.7, 0.3) == pytest.approx((1 / 10 + 1 / 3) / 2)
    assert at(0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9) == pytest.approx(0.5 / 1000), "the first dose that lies below counts"
    assert at(*[0.9] * 7) == 1 and at(*[0.2] * 7) == 0


def test_quick_needs_only_its_own_doses() -> None:
    runs = dose.dose_grid(range(2), quick=True)
    made = lines(runs, lambda run: made_line(run, leaks([0.98, 0.95, 0.9, 0.8, 0.6, 0.1, 0.03], 0.2, 0.9)))
    found = conclude(dose.DOSE, runs, made, command="", quick=True)
    assert [claim.name for claim in found.claims] == ["dose 0", "broken at 1in30", "broken at 1in3"]
    assert all(math.isfinite(claim.effect or math.nan) for claim in found.claims)
