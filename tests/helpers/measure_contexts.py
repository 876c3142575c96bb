"""Contexts of measures for tests: of a surveyed model, or of arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.pairs.interventions import Interventions, interventions_of
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.answers import answer_plan
from theodolite.records.progress import silent
from theodolite.worlds.world import World


def model_context(model: Any, processor: Any, world: World, policy: str, num_scenes: int, seed: int = 0) -> MeasureContext:
    """The context of a model surveyed on a world."""
    plan = plan_world(world, world.policy(policy), num_scenes, seed, 64)
    asker = LocalAsker(model, processor)
    rows = answer_plan(plan, asker)
    values = {factor.name: factor.values for factor in world.space.factors}
    return MeasureContext(model, asker, plan, rows, interventions_of(rows, values), {}, questions_of(rows, world), 0.95, seed)


def array_context(interventions: Mapping[str, Interventions], activations: Any, **fields: Any) -> MeasureContext:
    """A context without a model, for measures that run no pass of their own; `fields` replace its other attributes and methods."""
    context = object.__new__(MeasureContext)
    defaults = {"confidence": 0.95, "seed": 0, "groups": {}, "progress": silent}
    context.__dict__.update(defaults, interventions=interventions, activations=activations, **fields)
    return context
