"""The study unlock: its runs are those of dose but for the objective, what it reads is where it looks, and its claims can fail."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from helpers.study_lines import line, lines
from theodolite.records.study import GridRun
from theodolite.studies import dose, flip, rivals, unlock
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import FinishedRuns, conclude

SEEDS = range(3)
RUNS = unlock.unlock_grid(SEEDS)
DOSE_RUNS = [run for run in dose.dose_grid(SEEDS) if run.arm.name in {dose.dose_arm(each) for each in unlock.DOSES}]
RIVAL_RUNS = [run for run in rivals.rivals_grid(SEEDS) if run.arm.name in unlock.OBJECTIVES]


def test_runs_differ_from_those_of_dose_and_rivals_in_objective_and_dose_alone() -> None:
    of_dose = {(run.arm.policy, run.seed): run for run in DOSE_RUNS}
    of_rivals = {(run.arm.name, run.seed): run for run in RIVAL_RUNS}
    for run in RUNS:
        objective = run.arm.name.partition("-")[0]
        plain = of_dose[run.arm.policy, run.seed]
        assert replace(run, arm=replace(run.arm, recipe=plain.arm.recipe, name=plain.arm.name), measures=("gap",)) == plain
        assert run.arm.recipe == of_rivals[objective, run.seed].arm.recipe
    assert of_dose[of_rivals["mixed", 0].arm.policy, 0].arm.name == "dose-0", "dose 0 of the objectives is asked as that of dose"
    assert len({run.key for run in RUNS}) == len(RUNS) == 3 * 3 * len(SEEDS)


def leaks_at(objective: str, leaks: dict[str, dict[str, float]], at: str, seed: int) -> float:
    return leaks[objective][at] - 0.002 * seed * (1 + list(leaks).index(objective))


def record(leaks: dict[str, dict[str, float]], residue: dict[str, float]) -> dict[str, str]:
    """The findings, of runs with these leaks by objective and dose and these probes of unasked factors by objective."""

    def own(run: Run) -> GridRun:
        objective, _, at = run.arm.name.partition("-")
        return line(run, leaks_at(objective, leaks, at, run.seed), 0.5)

    def of_rivals(run: Run) -> GridRun:
        rung = residue[run.arm.name] + 0.001 * run.seed * (run.arm.name == "laver")
        decoded = {factor: {"layer.4": rung} for factor in flip.INERT}
        return line(run, leaks_at(run.arm.name, leaks, "0", run.seed), 0.1, decoded=decoded)

    of_dose = [line(run, leaks_at("plain", leaks, run.arm.name.partition("-")[2], run.seed), 0.1) for run in DOSE_RUNS]
    others = [*of_dose, *(of_rivals(run) for run in RIVAL_RUNS)]
    study = conclude(unlock.UNLOCK, RUNS, lines(RUNS, own), others, command="", quick=False)
    (figure,) = study.figures
    assert {(point.series, point.x) for point in figure.points} == {
        (name, round(float(each), 4)) for name in ("plain", *unlock.OBJECTIVES) for each in unlock.DOSES
    }
    return {claim.name: claim.finding for claim in study.claims}


def curve(*leaks: float) -> dict[str, float]:
    return dict(zip(("0", "1in100", "1in30", "1in10"), leaks, strict=True))


def test_the_claims_hold_where_objectives_do_as_said_and_fail_where_not() -> None:
    as_said = record(
        {
            "plain": curve(0.99, 0.97, 0.9, 0.3), "mixed": curve(0.98, 0.95, 0.7, 0.2), "laver": curve(0.98, 0.7, 0.4, 0.1),
            "interventional": curve(0.3, 0.2, 0.1, 0.05),
        },
        {"mixed": 0.3, "laver": 0.6, "interventional": 0.3},
    )  # fmt: skip
    assert set(as_said.values()) == {"holds"} and len(as_said) == 1 + 2 + 3 + 2
    other = record(
        {
            "plain": curve(0.8, 0.6, 0.3, 0.1), "mixed": curve(0.8, 0.7, 0.4, 0.1), "laver": curve(0.8, 0.75, 0.6, 0.2),
            "interventional": curve(0.8, 0.78, 0.7, 0.6),
        },
        {"mixed": 0.3, "laver": 0.2, "interventional": 0.3},
    )  # fmt: skip
    assert set(other.values()) == {"fails"}, other


def test_a_shadow_that_no_dose_breaks_counts_as_broken_at_the_largest() -> None:
    made = lines(RUNS, lambda run: line(run, 0.9, 0.1))
    others = [line(run, 0.9, 0.1) for run in RIVAL_RUNS]
    finished = FinishedRuns(tuple((run, made[run.key]) for run in RUNS), RUNS, tuple(others))
    assert unlock.broken_at(finished, "laver") == dict.fromkeys(SEEDS, 0.1)
    assert unlock.broken_at(finished, "plain") == {}, "without the runs of dose nothing is known"


def test_the_dose_that_breaks_is_interpolated() -> None:
    made = lines(RUNS, lambda run: line(run, 0.7 if run.arm.name.endswith("1in100") else 0.3, 0.1))
    others = [line(run, 0.9, 0.1) for run in RIVAL_RUNS]
    finished = FinishedRuns(tuple((run, made[run.key]) for run in RUNS), RUNS, tuple(others))
    half_way = float(Fraction(1, 100) + Fraction(1, 30)) / 2
    assert unlock.broken_at(finished, "laver")[0] == pytest.approx(half_way)


def test_a_quick_grid_draws_and_judges_nothing() -> None:
    runs = unlock.unlock_grid(range(1), quick=True)
    study = conclude(unlock.UNLOCK, runs, lines(runs, lambda run: line(run, 0.9, 0.1)), command="", quick=True)
    assert study.claims == () and {point.series for point in study.figures[0].points} == {"mixed", "interventional"}
