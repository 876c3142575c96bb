"""Surveyed models as subjects of measures, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.pairs.interventions import interventions_of
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.answers import answer_plan
from theodolite.records.progress import silent
from theodolite.worlds.world import World


def subject_of(model: Any, processor: Any, world: World, policy: str, num_scenes: int, seed: int = 0) -> MeasureContext:
    """A survey of a model on a world, as measures inside the model see it."""
    plan = plan_world(world, world.policy(policy), num_scenes, seed, 64)
    asker = LocalAsker(model, processor)
    rows = answer_plan(plan, asker)
    values = {factor.name: factor.values for factor in world.space.factors}
    return MeasureContext(model, asker, plan, rows, interventions_of(rows, values), {}, questions_of(rows, world), 0.95, seed)


def bare_subject(changes: Mapping[str, Any], held: Any, **rest: Any) -> MeasureContext:
    """A subject of arrays alone, without a model: what measures that need no pass of their own read."""
    context = object.__new__(MeasureContext)
    context.__dict__.update(changes=changes, activations=held, confidence=0.95, seed=0, groups={}, progress=silent, **rest)
    return context
