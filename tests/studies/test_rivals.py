"""The study rivals: arms differ in the objective alone, its claims can fail, and a run leaves the numbers that they need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.study_lines import line, lines
from theodolite.models.construction.build import DecoderSize
from theodolite.objectives.laver import LaverConfig
from theodolite.records.study import GridRun
from theodolite.studies import flip, rivals
from theodolite.studies.engine.costs import arithmetic
from theodolite.studies.engine.execute import Run, execute
from theodolite.studies.engine.study import conclude
from theodolite.training.recipes import MIXED

RUNS = rivals.rivals_grid(range(3))
BY_ARM = {run.arm.name: run for run in RUNS if run.seed == 0}


def test_arms_differ_in_their_objective_alone() -> None:
    plain = next(run.arm for run in flip.first_grid(range(1)) if run.arm.name == "agree" and run.arm.strength == 0.8)
    for name, run in BY_ARM.items():
        assert (run.arm.policy, run.arm.strength, run.arm.num_pictures, run.arm.comparison) == (
            plain.policy, plain.strength, plain.num_pictures, plain.comparison,
        )  # fmt: skip
        assert replace(run.arm.recipe, laver=None, auxiliary=None, adaptation=plain.recipe.adaptation) == plain.recipe, name
    assert BY_ARM["plain"].arm.recipe == plain.recipe
    assert all(run.arm.recipe.adaptation == MIXED for name, run in BY_ARM.items() if name != "plain")
    objectives = [(run.arm.recipe.laver, run.arm.recipe.auxiliary) for name, run in BY_ARM.items() if name != "plain"]
    assert len({repr(each) for each in objectives}) == len(objectives) == len(rivals.ARMS) - 1
    both = BY_ARM["laver+interventional"].arm.recipe
    assert isinstance(both.laver, LaverConfig) and both.auxiliary == BY_ARM["interventional"].arm.recipe.auxiliary
    assert len({run.key for run in RUNS}) == len(RUNS)


def test_dearer_objectives_are_expected_to_take_longer() -> None:
    costs = {name: arithmetic(run) for name, run in BY_ARM.items()}
    assert costs["plain"] == costs["mixed"] == costs["pixels"] < costs["laver"] < costs["interventional"] < costs["views"]


def made(run: Run, leak: dict[str, float], residue: dict[str, float], cosine: dict[str, float]) -> GridRun:
    name = run.arm.name
    wobble = 0.0005 * run.seed * (1 + rivals.ARMS.index(name))
    rung = residue.get(name, residue["else"]) + wobble
    return line(
        run, leak.get(name, leak["else"]) - wobble, 0.1,
        decoded={factor: {"layer.4": rung, "encoder": 0.9} for factor in flip.INERT},
        cosine={"layer.4": cosine.get(name, cosine["else"]) + wobble * (name == "mixed")},
    )  # fmt: skip


def findings(leak: dict[str, float], residue: dict[str, float], cosine: dict[str, float]) -> dict[str, str]:
    record = conclude(rivals.RIVALS, RUNS, lines(RUNS, lambda run: made(run, leak, residue, cosine)), command="", quick=False)
    assert [panel for figure in record.figures for panel in {point.panel for point in figure.points}]
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_objectives_do_as_said_and_fail_where_not() -> None:
    pairs = dict.fromkeys(("interventional", "laver+interventional", "pixels+interventional"), 0.05)
    keeping = dict.fromkeys((*rivals.RECONSTRUCTION, *rivals.SUMS), 0.6)
    as_said = findings({"else": 0.95, **pairs}, {"else": 0.3, **keeping}, {"else": 0.8, "laver": 0.4})
    assert set(as_said.values()) == {"holds"} and len(as_said) == 1 + 5 + 3 + 7 + 1 + 1
    other = findings(
        {"else": 0.95, "pixels": 0.05, "laver+interventional": 0.9}, {"else": 0.3, "interventional": 0.5}, {"else": 0.4, "laver": 0.8}
    )
    assert other["shadow"] == other["laver cures nothing"] == "holds"
    assert other["pixels cures nothing"] == other["laver+interventional cures"] == other["laver keeps"] == "fails"
    assert other["interventional keeps no more"] == other["likeness"] == "fails"


def test_a_quick_grid_judges_leaks_alone() -> None:
    runs = rivals.rivals_grid(range(2), quick=True)
    record = conclude(rivals.RIVALS, runs, lines(runs, lambda run: line(run, 0.9, 0.1)), command="", quick=True)
    assert [claim.name for claim in record.claims] == ["shadow", "pixels cures nothing", "interventional cures"]


@pytest.mark.parametrize("name", ["laver+interventional", "views"])
def test_a_run_leaves_probes_and_likeness_of_a_model_trained_so(name: str) -> None:
    """Two steps of a small model, surveyed inside."""
    run = BY_ARM[name]
    recipe = replace(run.arm.recipe, steps=2, batch=4, decoder=DecoderSize(num_layers=1, width=32, num_heads=2))
    short = replace(run, arm=replace(run.arm, recipe=recipe, num_pictures=12), num_scenes=6, inside_scenes=12)
    done = execute(short).line
    assert done.decoded.keys() >= {"shape", "colour", *flip.INERT} and {"encoder", "layer.1"} <= done.decoded["tilt"].keys()
    assert {"encoder", "layer.1"} <= done.cosine.keys()
    assert done.setup.recipe["auxiliary"] is not None and done.facts.num_pictures == 12
