"""The study frontier: the unsayable factor is tied in its own runs alone, and its claims can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.study_lines import line, lines
from helpers.study_records import moved
from theodolite.records.errors import BadInput
from theodolite.records.study import GridRun, write_runs
from theodolite.studies import frontier, rivals
from theodolite.studies.engine.catalogue import read_beside
from theodolite.studies.engine.execute import Run
from theodolite.studies.engine.study import conclude
from theodolite.worlds.shapes.world import Shapes

SEEDS = range(3)
RUNS = frontier.frontier_grid(SEEDS)
RIVALS = rivals.rivals_grid(SEEDS)


def test_its_runs_are_those_of_rivals_but_for_what_is_tied() -> None:
    of_rivals = {(run.arm.name, run.seed): run for run in RIVALS}
    for run in RUNS:
        other = of_rivals[run.arm.name, run.seed]
        assert replace(run, correlation=None) == other and run.key != other.key
        (tie,) = run.training_world.prior.correlations
        assert (tie.cause, tie.effect, tie.strength) == ("shape", "sheen", 0.8)
    assert len({run.key for run in RUNS}) == len(RUNS) == len(frontier.TIED_ARMS) * len(SEEDS)


def test_every_factor_is_of_one_kind_and_the_unsayable_one_cannot_be_named() -> None:
    names = [name for kind in frontier.KINDS.values() for name in kind]
    assert sorted(names) == sorted(Shapes().space.names)
    assert not Shapes().space["sheen"].nameable and all(Shapes().space[name].nameable for name in names if name != "sheen")


def with_probes(run: Run, made: GridRun, last: dict[str, float]) -> GridRun:
    wobble = 0.0005 * run.seed * (1 + rivals.ARMS.index(run.arm.name)) * (2 if run.correlation else 1)
    decoded = {
        name: {"encoder": 0.9, "layer.4": last[kind] + wobble * place}
        for place, (kind, each) in enumerate(frontier.KINDS.items())
        for name in each
    }
    return made.model_copy(update={"decoded": decoded})


def of_rivals(last: dict[str, float], **unsayable: float) -> list[GridRun]:
    return [with_probes(run, line(run, 0.9, 0.1), last | {"unsayable": unsayable.get(run.arm.name, last["unsayable"])}) for run in RIVALS]


def tied(run: Run, leak: float, pairs_leak: float, unsayable: dict[str, float]) -> GridRun:
    name, wobble = run.arm.name, 0.0005 * run.seed * (1 + rivals.ARMS.index(run.arm.name))
    made = line(run, 0.05, 0.9)
    moves = moved("sheen", "shape", False, (pairs_leak if name == "interventional" else leak) - wobble)
    made = made.model_copy(update={"cells": (*(cell for cell in made.cells if cell.factor != "sheen"), moves)})
    kept = unsayable.get(name, unsayable["else"])
    return with_probes(run, made, {"asked": 0.9, "tied": 0.5, "free": 0.4, "unsayable": kept})


def findings(
    others: list[GridRun], leak: float = 0.5, pairs_leak: float = 0.1, unsayable: dict[str, float] | None = None
) -> dict[str, str]:
    unsayable = unsayable or {"else": 0.9, "mixed": 0.6}
    made = lines(RUNS, lambda run: tied(run, leak, pairs_leak, unsayable))
    record = conclude(frontier.FRONTIER, RUNS, made, others, command="", quick=False)
    (figure,) = record.figures
    assert {point.panel.partition(":")[0] for point in figure.points} == {*frontier.KINDS, "unsayable, tied"}
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_it_is_as_said_and_fail_where_not() -> None:
    last = {"asked": 0.9, "tied": 0.5, "free": 0.4, "unsayable": 0.4}
    as_said = findings(of_rivals(last, **dict.fromkeys(frontier.KEEPING, 0.8)))
    assert set(as_said.values()) == {"holds"} and len(as_said) == 3 + 8 + 1 + 2 + 4
    all_kept = {"asked": 0.6, "tied": 0.9, "free": 0.9, "unsayable": 0.75}
    other = findings(of_rivals(all_kept, laver=0.5), leak=0.05, pairs_leak=0.5, unsayable={"else": 0.3, "mixed": 0.6})
    assert set(other.values()) == {"fails"}, other


def test_a_run_of_rivals_that_is_missing_is_left_out_of_its_seed_alone() -> None:
    others = of_rivals({"asked": 0.9, "tied": 0.5, "free": 0.4, "unsayable": 0.4}, **dict.fromkeys(frontier.KEEPING, 0.8))
    fewer = [each for each in others if not (each.facts.arm == "pixels" and each.facts.seed == 1)]
    made = lines(RUNS, lambda run: tied(run, 0.5, 0.1, {"else": 0.9}))
    record = conclude(frontier.FRONTIER, RUNS, made, fewer, command="", quick=False)
    claims = {claim.name: claim for claim in record.claims}
    assert sorted(claims["pixels keeps"].by_seed) == [0, 2] and sorted(claims["align keeps"].by_seed) == [0, 1, 2]


def test_it_reads_the_runs_of_rivals_beside_it_and_is_refused_without(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run `theodolite study rivals` first"):
        read_beside(frontier.FRONTIER, SEEDS, tmp_path / "frontier")
    write_runs(tmp_path / "rivals", [line(run, 0.9, 0.1) for run in RIVALS[:-1]])
    others, (note,) = read_beside(frontier.FRONTIER, SEEDS, tmp_path / "frontier")
    assert len(others) == len(RIVALS) - 1 and "1 of 30 are missing" in note


def test_a_quick_grid_judges_leaks_alone() -> None:
    runs = frontier.frontier_grid(range(2), quick=True)
    made = lines(runs, lambda run: line(run, 0.9, 0.1))
    record = conclude(frontier.FRONTIER, runs, made, command="", quick=True)
    assert [claim.name for claim in record.claims] == ["unsayable shadow", "pairs cure it"]
