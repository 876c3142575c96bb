"""Lines that runs of a study could leave, made up, for tests of how claims are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helpers.study_records import grid_run, moved
from theodolite.records.study import AnsweredRight, GridRun
from theodolite.studies import flip
from theodolite.studies.engine.execute import Run


def line(run: Run, leak: float, read: float, right: float = 0.9, **changed: object) -> GridRun:
    """A line that a run could leave: what its answers about shape follow."""
    made = grid_run(run.arm.policy, run.arm.strength, run.seed, 0.0)
    cells = (moved("colour", "shape", False, leak), moved("shape", "shape", True, read), moved("colour", "colour", True, 0.9))
    others = tuple(moved(name, "shape", False, 0.01) for name in flip.INERT)
    answered = tuple(
        AnsweredRight(query=query, form="open", scenes="training", frac=right, low=right - 0.05, chance_frac=0.26)
        for query in ("shape", "colour", "row")
    )
    facts = made.facts.model_copy(
        update={
            "arm": run.arm.name,
            "comparison": run.arm.comparison,
            "num_pictures": run.arm.num_pictures,
            "num_steps": run.arm.recipe.steps,
            "world": run.world,
            "pictures_sha256": f"{run.world} {run.arm.strength} {run.seed} {run.arm.num_pictures}",
        }
    )
    update = {"key": run.key, "setup": run.setup, "facts": facts, "cells": cells + others, "answered": answered, **changed}
    return made.model_copy(update=update)


def lines(runs: Sequence[Run], make: Callable[[Run], GridRun]) -> dict[str, GridRun]:
    return {run.key: make(run) for run in runs}


def locked(run: Run) -> GridRun:
    """The flip as the essay has it: a shadow where only agreeing scenes are asked, or where nothing tells the two apart."""
    shadow = run.arm.name.startswith("agree") or run.arm.strength == 1
    wobble = 0.01 * run.seed
    return line(run, 0.95 - wobble if shadow else 0.03 + wobble, 0.05 if shadow else 0.97)
