"""The survey of one model: asks what the plan says, and turns the answers into a record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from torch import nn

from theodolite.measurement.behaviour.accuracy import measure_accuracy
from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.internals.context import questions_of
from theodolite.measurement.pairs.plan import Plan, plan_gallery, plan_world
from theodolite.measurement.survey.answers import answer_plan
from theodolite.measurement.survey.describe import (
    describe_gallery,
    describe_world,
    examples_of_pairs,
    examples_of_world,
    rows_hash,
)
from theodolite.measurement.survey.official import score_official
from theodolite.measurement.survey.options import INSIDE_SCENES, SurveyedModel, SurveyOptions, SurveyResult, SurveySession
from theodolite.questions.coverage import measure_coverage
from theodolite.records.survey import Example, Score, SurveyRecord, TrainingFacts, WorldConfig
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.query import Policy
from theodolite.worlds.world import World, picture_hash

__all__ = [
    "INSIDE_SCENES",
    "SurveyOptions",
    "SurveyResult",
    "SurveyedModel",
    "answer_plan",
    "ask_gallery",
    "ask_world",
    "rows_hash",
    "survey",
    "survey_gallery",
    "survey_pairs",
    "survey_world",
]


def survey(
    model: nn.Module, processor: Any, pairs: World | Gallery | Path | Plan, *, title: str = "model", way: SurveyOptions | None = None
) -> SurveyResult:
    """Surveys a model of any family of the table: on a world with all of its open questions, a gallery, or pairs from a file or a plan.

    Raises `UnknownFamily` for a model that is not in the table, `BadManifest` for a file of which nothing can be used.
    """
    if isinstance(pairs, World):
        policy = pairs.policy(",".join(query.name for query in pairs.queries if query.form == "open"))
        return survey_world(model, processor, pairs, policy, title=title, way=way)
    if isinstance(pairs, Plan):
        return survey_pairs(model, processor, pairs, title=title, way=way)
    gallery = read_manifest(pairs).gallery if isinstance(pairs, Path) else pairs
    return survey_gallery(model, processor, gallery, title=title, way=way)


def survey_world(
    model: nn.Module,
    processor: Any,
    world: World,
    policy: Policy,
    *,
    title: str,
    num_scenes: int = 200,
    seed: int = 0,
    training: TrainingFacts | None = None,
    way: SurveyOptions | None = None,
) -> SurveyResult:
    """Surveys a model on counterfactual pairs of a world, asking the queries of the policy it is judged by.

    Raises `UnknownFamily` for a model that is not in the families table.
    """
    way = way or SurveyOptions()
    candidate = SurveyedModel.of_model(model, processor, way.batch)
    return ask_world(candidate, world, policy, title=title, num_scenes=num_scenes, seed=seed, training=training, way=way)


def survey_gallery(
    model: nn.Module,
    processor: Any,
    gallery: Gallery,
    *,
    title: str,
    seed: int = 0,
    training: TrainingFacts | None = None,
    way: SurveyOptions | None = None,
) -> SurveyResult:
    """Surveys a model on a gallery's pairs. Nothing is known of what training asked: every query of the gallery counts as asked.

    `seed` is that by which the gallery was drawn, and of measures inside. Raises `UnknownFamily` for a model that is not in the table.
    """
    way = way or SurveyOptions()
    return ask_gallery(SurveyedModel.of_model(model, processor, way.batch), gallery, title=title, seed=seed, training=training, way=way)


def survey_pairs(model: nn.Module, processor: Any, plan: Plan, *, title: str, way: SurveyOptions | None = None) -> SurveyResult:
    """Surveys a model on a plan of pairs from anywhere: every query of the plan counts as asked."""
    way = way or SurveyOptions()
    work = SurveySession.of(SurveyedModel.of_model(model, processor, way.batch), plan, way)
    return work.survey(_record_of_pairs(work, title=title, seed=0, world=None, training=None), {})


def ask_world(
    candidate: SurveyedModel,
    world: World,
    policy: Policy,
    *,
    title: str,
    num_scenes: int = 200,
    seed: int = 0,
    training: TrainingFacts | None = None,
    way: SurveyOptions | None = None,
) -> SurveyResult:
    """As `survey_world`, of whoever answers. Raises `BadInput` for measures of an inside that is not here."""
    plan = plan_world(world, policy, num_scenes, seed, candidate.size)
    work = SurveySession.of(candidate, plan, way or SurveyOptions())
    scores: tuple[Score, ...] = ()
    if world.official_splits and work.way.official:
        with work.way.stage("official questions", "the world's own test questions") as tell:
            scores = score_official(world, candidate.asker, candidate.size, tell)
    shadows = measure_shadows(
        work.rows,
        factors=world.space.names,
        dependence={query.name: frozenset(query.depends_on) for query in policy.queries},
        asked=frozenset(query.name for query in policy.supported(world.prior)),
        thresholds=work.way.thresholds,
    )
    values = {factor.name: factor.values for factor in world.space.factors}
    groups = {factor.name: dict(factor.groups) for factor in world.space.factors if factor.groups}
    inside = work.look(values, groups, questions_of(work.rows, world), seed)
    examples, pictures = examples_of_world(plan, work.rows, world)
    record = SurveyRecord(
        title=title,
        world=describe_world(world, plan.pair_kind),
        model=candidate.describe(),
        policy=str(policy),
        seed=seed,
        num_scenes=num_scenes,
        pictures_sha256=picture_hash(plan.pictures[: plan.num_pair_pictures]),
        rows_sha256=rows_hash(work.rows),
        coverage=measure_coverage(world.prior, policy),
        shadows=shadows,
        training=training,
        scores=scores,
        examples=examples,
        inside=inside,
    )
    return work.survey(record, pictures)


def ask_gallery(
    candidate: SurveyedModel,
    gallery: Gallery,
    *,
    title: str,
    seed: int = 0,
    training: TrainingFacts | None = None,
    way: SurveyOptions | None = None,
) -> SurveyResult:
    """As `survey_gallery`, of whoever answers. Raises `BadInput` for measures of an inside that is not here."""
    work = SurveySession.of(candidate, plan_gallery(gallery, candidate.size), way or SurveyOptions())
    examples, pictures = examples_of_pairs(work.plan, work.rows)
    world = describe_gallery(gallery)
    record = _record_of_pairs(work, title=title, seed=seed, world=world, training=training, left_out=gallery.left_out, examples=examples)
    return work.survey(record, pictures)


def _record_of_pairs(
    work: SurveySession,
    *,
    title: str,
    seed: int,
    world: WorldConfig | None,
    training: TrainingFacts | None,
    left_out: Mapping[str, int] | None = None,
    examples: tuple[Example, ...] = (),
) -> SurveyRecord:
    """The record of given pairs. Which factors an answer depends on is read off the rows: those that move its truth in some row."""
    interventions = work.rows.filter(pl.col("kind") == "intervention")
    moving = interventions.filter(pl.col("truth_before") != pl.col("truth_after"))
    names = interventions["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset(moving.filter(pl.col("name") == name)["factor"]) for name in names}
    factors = interventions["factor"].unique(maintain_order=True).to_list()
    values = None if world is None else world.factors
    groups = {} if world is None else world.groups
    return SurveyRecord(
        title=title,
        world=world,
        model=work.candidate.describe(),
        policy=None,
        seed=seed,
        num_scenes=work.rows["scene"].n_unique(),
        pictures_sha256=picture_hash(work.plan.pictures[: work.plan.num_pair_pictures]),
        rows_sha256=rows_hash(work.rows),
        coverage=None,
        shadows=measure_shadows(work.rows, factors, dependence, frozenset(names), work.way.thresholds),
        training=training,
        accuracy=measure_accuracy(work.rows),
        left_out=dict(left_out or {}),
        examples=examples,
        inside=work.look(values, groups, questions_of(work.rows, None), seed),
    )
