"""The study geometry: policies grade coverage, lines hold numbers inside, and its claims can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.inside_records import inside
from helpers.study_lines import line
from helpers.study_records import moved
from theodolite.models.construction.build import DecoderSize
from theodolite.questions.coverage import measure_coverage
from theodolite.records.study import AnsweredRight, GridRun
from theodolite.studies import geometry
from theodolite.studies.engine.execute import Run, execute
from theodolite.studies.engine.inside_numbers import inside_numbers
from theodolite.studies.engine.study import conclude
from theodolite.worlds.registry import world_named

RUNS = geometry.geometry_grid(range(2))
COVERAGE = {
    run.arm.name: measure_coverage(run.training_world, run.arm.policy).coverage for run in RUNS if run.seed == 0
}  # of every factor, by arm


def asked_of(run: Run) -> list[str]:
    return [query.name for query in world_named("shapes").policy(run.arm.policy).queries]


def test_coverage_is_graded_over_asked_factors() -> None:
    graded = sorted(COVERAGE[run.arm.name][name] for run in RUNS if run.seed == 0 for name in asked_of(run))
    for low, high, least in ((-1, 0, 15), (0, 0.2, 15), (0.2, 0.6, 15), (0.6, 1, 30)):
        assert sum(low < value <= high for value in graded) >= least, (low, high)
    assert len({run.arm.policy for run in RUNS}) == geometry.NUM_POLICIES == len(COVERAGE)
    assert len({run.key for run in RUNS}) == len(RUNS)


def test_fewer_policies_are_the_first_of_more() -> None:
    assert geometry.graded_policies(5) == geometry.graded_policies(35)[:5]


def made(run: Run, size: dict[str, tuple[float, float]], noise: float) -> GridRun:
    """A line in which a measure goes from its first number at coverage 0 to its second at 1; read follows coverage."""
    rng = np.random.default_rng([run.seed, int(run.arm.name.split()[1])])
    coverage = COVERAGE[run.arm.name]
    names = asked_of(run)
    reads = {name: float(np.clip(0.1 + 0.8 * coverage[name] ** 0.5 + rng.normal(0, 0.1), 0, 1)) for name in names}
    numbers = {
        measure: {name: float(zero + (one - zero) * coverage[name] ** 0.5 + rng.normal(0, noise)) for name in names}
        for measure, (zero, one) in size.items()
    }
    steps = numbers.pop("step")
    plain = line(run, 0.1, 0.9)
    return plain.model_copy(
        update={
            "cells": tuple(moved(name, name, True, reads[name]) for name in names),
            "answered": tuple(
                AnsweredRight(query=name, form="open", scenes="training", frac=0.9, low=0.85, chance_frac=0.26) for name in names
            ),
            "foretold": plain.foretold.model_copy(
                update={"coverage": {name: coverage[name] for name in names if coverage[name]}, "asked_frac": dict.fromkeys(names, 1.0)}
            ),
            "inside": numbers,
            "decoded": {name: {"layer.4": 0.9, "answer": 0.9 - steps[name]} for name in names},
        }
    )


def findings(size: dict[str, tuple[float, float]], noise: float = 0.1) -> dict[str, str]:
    lines = {run.key: made(run, size, noise) for run in RUNS}
    record = conclude(geometry.GEOMETRY, RUNS, lines, command="", quick=False)
    (figure,) = record.figures
    assert {point.panel for point in figure.points} == {"read", *geometry.MEASURES}
    assert all(claim.independent == "policy" for claim in record.claims)
    return {claim.name: claim.finding for claim in record.claims}


def test_the_claims_hold_where_measures_do_as_said_and_fail_where_not() -> None:
    as_said = findings({name: (0.0, measure.sign * 1.0) for name, measure in geometry.MEASURES.items()})
    assert set(as_said.values()) == {"holds"} and len(as_said) == 2 * len(geometry.MEASURES) + 1
    other = findings({name: (0.0, measure.sign * -1.0) for name, measure in geometry.MEASURES.items()})
    assert {other[f"{name} at the boundary"] for name in geometry.MEASURES} == {"fails"}


def test_measures_that_say_nothing_hold_no_claim() -> None:
    nothing = findings(dict.fromkeys(geometry.MEASURES, (0.0, 0.0)))
    assert "holds" not in {nothing[f"{name} at the boundary"] for name in geometry.MEASURES}
    assert nothing["coverage predicts read"] == "holds"


def test_the_numbers_of_a_line_are_those_of_the_record() -> None:
    found = inside()
    numbers = inside_numbers(found)
    assert found.geometry is not None and found.fisher is not None
    shape = found.geometry.sites["layer.3"].euclidean
    for name, each in shape.factors.items():
        assert numbers["consistency"].get(name) == (None if each.consistency is None else each.consistency.estimate.value)
        overlaps = [pair.overlap.estimate.value for pair in shape.overlaps if name in (pair.first, pair.second)]
        assert numbers["overlap"][name] == pytest.approx(sum(overlaps) / len(overlaps))
        if each.simplex is not None and each.simplex.regularity is not None:
            assert numbers["regularity"][name] == each.simplex.regularity.value
    assert numbers["gradient"] == {each.factor: each.excess_random.value for each in found.fisher.gradients}
    energies = tuple(each.model_copy(update={"energy_excess": each.slope_span}) for each in found.fisher.energies if each.slope_span)
    more = found.model_copy(update={"fisher": found.fisher.model_copy(update={"energies": energies})})
    excess = [each.slope_span.value for each in energies if each.factor == "shape" and each.slope_span]
    assert inside_numbers(more)["energy"]["shape"] == pytest.approx(sum(excess) / len(excess)) and len(excess) > 1
    assert "energy" not in numbers, "none of its energies has an excess"
    assert inside_numbers(None) == inside_numbers(found.model_copy(update={"geometry": None, "fisher": None})) == {}


def test_a_quick_grid_judges_nothing() -> None:
    runs = geometry.geometry_grid(range(1), quick=True)
    record = conclude(geometry.GEOMETRY, runs, {run.key: line(run, 0.5, 0.5) for run in runs}, command="", quick=True)
    assert record.claims == ()


def test_a_run_leaves_the_numbers_that_the_claims_need() -> None:
    """Two steps of a small model, looked at inside."""
    run = next(run for run in RUNS if run.arm.name == "graded 0")
    recipe = replace(run.arm.recipe, steps=2, batch=4, decoder=DecoderSize(num_layers=1, width=32, num_heads=2))
    short: Any = replace(run, arm=replace(run.arm, recipe=recipe, num_pictures=12), num_scenes=8, inside_scenes=8)
    done = execute(short).line
    assert done.inside.keys() <= set(geometry.MEASURES) - {"step"}
    for measure in ("consistency", "overlap", "energy", "gradient"):
        assert set(asked_of(run)) <= done.inside[measure].keys(), measure
    assert all(np.isfinite(value) for values in done.inside.values() for value in values.values())
    assert {"layer.1", "answer"} <= done.decoded["tilt"].keys()
