"""Control arms of the flip: matched with its other arms, judged by rules that can fail, and keys of committed runs that never change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.study_lines import line, lines, locked
from helpers.study_records import moved
from theodolite.models.construction.frontends import front_end
from theodolite.questions.coverage import measure_coverage
from theodolite.records.study import GridRun, read_runs
from theodolite.studies import flip, flip_controls
from theodolite.studies.engine.arms import Arm
from theodolite.studies.engine.catalogue import STUDIES
from theodolite.studies.engine.execute import Run, train_run
from theodolite.studies.engine.study import FinishedRuns, conclude
from theodolite.worlds.registry import world_named

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


@pytest.mark.parametrize("name", ["flip", "lock", "forecast"])
def test_the_keys_of_committed_runs_are_still_keys_of_the_grid(name: str) -> None:
    committed = read_runs(RESULTS / name)
    keys = {run.key for run in STUDIES[name].grid(range(5), False)}
    assert len(committed) >= 50 and set(committed) <= keys
    # What the lines hold is what those runs of the grid would be set up with: nothing was added to the record of an old recipe.
    setups = {run.key: run.setup for run in STUDIES[name].grid(range(5), False)}
    assert all(run.setup == setups[key] for key, run in committed.items())


def test_other_studies_read_the_runs_that_they_were_judged_on() -> None:
    assert {run.key for run in flip.first_grid(range(5))} == set(read_runs(RESULTS / "flip"))
    assert STUDIES["flip"].shared is flip.first_grid


def test_unfinished_runs_are_runs_of_the_grid_that_are_not_judged_yet() -> None:
    unfinished = RESULTS / "unfinished"
    for folder in unfinished.iterdir():
        runs, setups = read_runs(folder), {run.key: run.setup for run in STUDIES[folder.name].grid(range(5), False)}
        assert runs and all(run.setup == setups[key] for key, run in runs.items())
        assert not runs.keys() & read_runs(RESULTS / folder.name).keys()
        assert {path.stem for path in (folder / "rows").iterdir()} == set(runs)


@pytest.mark.parametrize("strength", flip_controls.STRENGTHS)
def test_the_two_by_two_and_the_swap_have_the_coverage_that_their_names_say(strength: float) -> None:
    world = world_named("shapes", strength)
    policies = {**flip.policies(), **flip_controls.control_policies()}
    covered = {name: measure_coverage(world, policies[name]).coverage for name in ("agree", "agree+colour", "all", "both")}
    assert covered["agree"]["shape"] == covered["agree+colour"]["shape"] == 0 and covered["agree"].get("colour", 0) == 0
    assert covered["all"]["shape"] == covered["both"]["shape"] == covered["agree+colour"]["colour"] > 0
    swapped = [measure_coverage(world, policies[name]).coverage["colour"] for name in ("swap-agree", "swap-all")]
    assert swapped == [0, covered["all"]["shape"]]


def test_towers_differ_in_nothing_but_the_tower() -> None:
    arms = {arm.name: arm for arm in flip_controls.control_arms() if arm.strength == 0.8}
    plain = {run.arm.name: run.arm for run in flip.first_grid(range(1)) if run.world == "shapes" and run.arm.strength == 0.8}
    for tower in flip_controls.TOWERS:
        for name in ("agree", "all"):
            arm = arms[f"{name}-{tower}"]
            assert arm.recipe != plain[name].recipe
            same = replace(arm.recipe, frontend="conv", tower="frozen")
            assert replace(arm, recipe=same, name=name) == plain[name]
    assert arms["agree-trained"].recipe.settings["tower"] == "trained"
    assert "tower" not in plain["agree"].recipe.settings


@pytest.mark.parametrize(("tower", "changes"), [("random", False), ("trained", True)])
def test_only_the_trained_tower_changes_and_a_run_repeats(tower: str, changes: bool) -> None:
    recipe = replace(flip_controls.tower_recipe(tower), steps=2, batch=4, precision="fp32")
    run = Run("shapes", Arm("agree", flip.policies()["agree"], recipe, 0.8, 16), 0, 3)
    trained, again = train_run(run), train_run(run)
    assert trained.record == again.record
    before = front_end(recipe.frontend, seed=0).state_dict()
    after = trained.model.model.vision_tower.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(before[name], after[name]) for name in before) != changes


def world_of(run: Run, *, salience: bool) -> GridRun:
    """A line in which the easier factor, colour, is read at coverage 0; or, without salience, whichever is asked is read."""
    follows_colour = run.arm.name.startswith("agree")
    read = 0.97 - 0.005 * run.seed
    if not salience:
        read = 0.1 + 0.005 * run.seed if run.arm.name == "swap-agree" else read
    made = line(run, 0.97 - 0.01 * run.seed if follows_colour else 0.02 + 0.01 * run.seed, 0.5)
    cells = tuple(cell for cell in made.cells if (cell.factor, cell.query) != ("colour", "colour"))
    swapped = (moved("colour", "colour", True, read), moved("shape", "colour", False, 0.02 if salience else 0.9 + 0.01 * run.seed))
    return made.model_copy(update={"cells": cells + swapped})


def judged(salience: bool) -> dict[str, str]:
    runs = flip.flip_grid(range(5))
    made = lines(runs, lambda run: world_of(run, salience=salience))
    return {claim.name: claim.finding for claim in conclude(flip.FLIP, runs, made, command="", quick=False).claims}


def test_the_claims_about_controls_hold_where_the_easier_factor_is_read_and_fail_where_it_is_not() -> None:
    found, other = judged(True), judged(False)
    towers = {f"tower {tower} at {strength:g}" for tower in flip_controls.TOWERS for strength in flip_controls.STRENGTHS}
    claims = {"swap read at 0.95", "swap covered at 0.95", "salience at 0.95", "proxy asked at 0.95", *towers}
    assert {found[name] for name in claims} == {"holds"}
    assert {other[name] for name in ("swap read at 0.95", "swap covered at 0.8", "salience at 0.95")} == {"fails"}
    assert {other[name] for name in towers} == {"holds"}


def test_claims_whose_arms_have_no_run_are_not_decided_and_known_outcomes_are_marked() -> None:
    runs = flip.flip_grid(range(5))
    first = {run.key for run in flip.first_grid(range(5))}
    record = conclude(flip.FLIP, runs, lines([run for run in runs if run.key in first], locked), command="", quick=False)
    claims = {claim.name: claim for claim in record.claims}
    towers = [claim for name, claim in claims.items() if name.startswith("tower")]
    assert len(towers) == 8 and all(claim.finding == "undecided" and claim.num_runs == 0 and not claim.known for claim in towers)
    assert claims["all to both at 0.95"].known and claims["swap read at 0.8"].known and not claims["swap read at 0.95"].known
    assert claims["shadow"].known and not claims["identified"].known
    assert not any("tower" in figure.name or "two-by-two" in figure.name for figure in record.figures)
    assert record.num_missing == len(runs) - len(first)


def test_seeds_of_an_arm_that_cannot_be_asked_are_left_out() -> None:
    runs = [run for run in flip.flip_grid(range(3)) if run.arm.name in ("agree-patches", "all-patches") and run.arm.strength == 0.8]
    made = tuple((run, line(run, 0.5, 0.5, 0.27 if run.arm.name == "agree-patches" and run.seed else 0.9)) for run in runs)
    claim = flip_controls._tower(FinishedRuns(made, tuple(runs)), "patches", 0.8)
    assert set(claim.by_seed) == {0}
