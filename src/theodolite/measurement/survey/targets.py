"""Targets of a survey: a world with a policy, a gallery of given pairs, or a plan; each gives the pairs and the facts about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from theodolite.measurement.behaviour.accuracy import measure_accuracy
from theodolite.measurement.pairs.plan import Plan, plan_gallery, plan_world
from theodolite.measurement.survey.describe import Examples, describe_gallery, describe_world, examples_of_pairs, examples_of_world
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.questions.coverage import measure_coverage
from theodolite.records.accuracy import Accuracy
from theodolite.records.coverage import Coverage
from theodolite.records.survey import WorldConfig
from theodolite.records.training import TrainingRecord
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.query import Policy
from theodolite.worlds.registry import WORLDS, gallery_named, is_gallery, world_named
from theodolite.worlds.world import World

Target = World | Gallery | Plan | Path | str


@dataclass(frozen=True, eq=False)
class ShadowQuestions:
    """Arguments of `measure_shadows`: the factors, those that each query's answer depends on, and the queries asked."""

    factors: Sequence[str]
    dependence: Mapping[str, frozenset[str]]
    asked: frozenset[str]


class SurveyTarget(ABC):
    """Pairs to survey on, and what is known of where they come from."""

    world: World | None = None
    policy: Policy | None = None
    left_out: Mapping[str, int] = {}

    @abstractmethod
    def plan(self, options: SurveyOptions, size: int) -> Plan:
        """The comparisons to make, with pictures of `size` pixels a side."""

    @abstractmethod
    def describe(self, plan: Plan) -> WorldConfig | None:
        """The record's description of the world or gallery; None where none is known."""

    @abstractmethod
    def shadow_questions(self, rows: pl.DataFrame) -> ShadowQuestions:
        """The factors and queries that verdicts are about."""

    @abstractmethod
    def num_scenes(self, options: SurveyOptions, rows: pl.DataFrame) -> int:
        """The record's number of base scenes."""

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        """Pairs to show, never chosen by their answers, with their pictures."""
        return (), {}

    def coverage(self) -> Coverage | None:
        """What the questions alone pin down; None where no prior is known."""
        return None

    def accuracy(self, rows: pl.DataFrame) -> Accuracy | None:
        """Accuracy of given pairs; None for a world's."""
        return None


@dataclass(frozen=True, eq=False)
class WorldTarget(SurveyTarget):
    """Pairs drawn from a world's independent prior, asked the queries of the policy that verdicts are judged by."""

    world: World
    policy: Policy

    def plan(self, options: SurveyOptions, size: int) -> Plan:
        return plan_world(self.world, self.policy, options.num_scenes, options.seed, size)

    def describe(self, plan: Plan) -> WorldConfig:
        return describe_world(self.world, plan.pair_kind)

    def shadow_questions(self, rows: pl.DataFrame) -> ShadowQuestions:
        return ShadowQuestions(
            self.world.space.names,
            {query.name: frozenset(query.depends_on) for query in self.policy.queries},
            frozenset(query.name for query in self.policy.supported(self.world.prior)),
        )

    def num_scenes(self, options: SurveyOptions, rows: pl.DataFrame) -> int:
        return options.num_scenes

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        return examples_of_world(plan, rows, self.world)

    def coverage(self) -> Coverage:
        return measure_coverage(self.world.prior, self.policy)


class _GivenPairs(SurveyTarget):
    """Pairs that exist already: every query counts as asked, and depends on the factors that move its truth in some row."""

    def shadow_questions(self, rows: pl.DataFrame) -> ShadowQuestions:
        interventions = rows.filter(pl.col("kind") == "intervention")
        moving = interventions.filter(pl.col("truth_before") != pl.col("truth_after"))
        names = interventions["name"].unique(maintain_order=True).to_list()
        dependence = {name: frozenset(moving.filter(pl.col("name") == name)["factor"]) for name in names}
        return ShadowQuestions(interventions["factor"].unique(maintain_order=True).to_list(), dependence, frozenset(names))

    def num_scenes(self, options: SurveyOptions, rows: pl.DataFrame) -> int:
        return rows["scene"].n_unique()

    def accuracy(self, rows: pl.DataFrame) -> Accuracy | None:
        return measure_accuracy(rows)


@dataclass(frozen=True, eq=False)
class GalleryTarget(_GivenPairs):
    """The pairs of a gallery."""

    gallery: Gallery

    @property
    def left_out(self) -> Mapping[str, int]:  # type: ignore[override]
        return self.gallery.left_out

    def plan(self, options: SurveyOptions, size: int) -> Plan:
        return plan_gallery(self.gallery, size)

    def describe(self, plan: Plan) -> WorldConfig:
        return describe_gallery(self.gallery)

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        return examples_of_pairs(plan, rows)


@dataclass(frozen=True, eq=False)
class PlanTarget(_GivenPairs):
    """A plan of pairs from anywhere, whose pictures have their size already."""

    given: Plan

    def plan(self, options: SurveyOptions, size: int) -> Plan:
        return self.given

    def describe(self, plan: Plan) -> None:
        return None


def target_of(target: Target, options: SurveyOptions, training: TrainingRecord | None = None) -> SurveyTarget:
    """The survey target that a world, a gallery, a plan, a manifest's path, or a name of a world or gallery stands for.

    Raises `BadManifest` for a file without a usable row, `UnknownName` for a name that is none.
    """
    if isinstance(target, str) and is_gallery(target):
        return GalleryTarget(gallery_named(target, None, options.seed))
    if isinstance(target, str) and target in WORLDS:
        target = world_named(target)
    if isinstance(target, str | Path):
        target = read_manifest(Path(target)).gallery
    if isinstance(target, World):
        return WorldTarget(target, _policy(target, options.policy, training))
    return GalleryTarget(target) if isinstance(target, Gallery) else PlanTarget(target)


def _policy(world: World, policy: str | Policy | None, training: TrainingRecord | None) -> Policy:
    """The policy as given, else as the model was trained on this world, else every open question."""
    if isinstance(policy, Policy):
        return policy
    trained = training.setup.policy if training is not None and training.setup.world == world.name else None
    return world.policy(policy or trained or world.open_policy)
