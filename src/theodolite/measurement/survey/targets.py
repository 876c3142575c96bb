"""Targets of a survey: a world with a policy, a gallery of given pairs, or a plan; each gives the pairs and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from theodolite.measurement.behaviour.dependence import infer_dependence
from theodolite.measurement.pairs.plan import Plan, plan_gallery, plan_world
from theodolite.measurement.survey.describe import Examples, describe_gallery, describe_world, example_pairs_of
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.records.survey import WorldConfig
from theodolite.records.training import TrainingRecord
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.manifest.read import read_manifest
from theodolite.worlds.query import Policy
from theodolite.worlds.registry import WORLDS, gallery_named, is_gallery, world_named
from theodolite.worlds.world import World

Target = World | Gallery | Plan | Path | str
# Of a survey's rows: the factors, the factors that each query's answer depends on, and the queries asked (`measure_shadows`).
ShadowQuestions = tuple[Sequence[str], Mapping[str, frozenset[str]], frozenset[str]]


@dataclass(frozen=True, eq=False)
class SurveyTarget:
    """Pairs to survey on: a plan made elsewhere (this class), a world's (`WorldTarget`), or a gallery's (`GalleryTarget`).

    Of given pairs every query counts as asked, and depends on the factors that are declared, else on those that move its truth in 5 % of
    its pairs or more.
    """

    source: Plan | Gallery | World
    policy: Policy | None = None

    @property
    def world(self) -> World | None:
        return self.source if isinstance(self.source, World) else None

    @property
    def left_out(self) -> Mapping[str, int]:
        """Rows that cannot be used, by reason."""
        return self.source.left_out if isinstance(self.source, Gallery) else {}

    @property
    def declared(self) -> Mapping[str, frozenset[str]]:
        """The factors that queries are declared to depend on, by the query's name."""
        return self.source.dependence if isinstance(self.source, Gallery) else {}

    @property
    def has_files(self) -> bool:
        """Whether pictures are files, which have a size of their own."""
        return False

    @property
    def pictures_folder(self) -> str | None:
        """The folder that pictures' names are relative to; None where they are drawn."""
        folder = self.source.folder if isinstance(self.source, Gallery) else None
        return None if folder is None else str(folder)

    def plan(self, options: SurveyOptions, size: int, *, scales: bool = True) -> Plan:
        """The comparisons to make, with pictures of `size` pixels a side, or of the options' picture size.

        Pictures of files keep their own aspect ratio unless the options have a picture size; `scales` applies the limits of their pixels,
        which a model's image processor may do itself.
        """
        assert isinstance(self.source, Plan)
        return self.source

    def describe(self, plan: Plan) -> WorldConfig | None:
        """The record's description of the world or gallery; None where none is known."""
        return None

    def num_scenes(self, options: SurveyOptions, rows: pl.DataFrame) -> int:
        """The record's number of base scenes."""
        return rows["scene"].n_unique()

    def shadow_questions(self, rows: pl.DataFrame) -> ShadowQuestions:
        """The factors and queries that verdicts are about."""
        factors = rows.filter(pl.col("kind") == "intervention")["factor"].unique(maintain_order=True).to_list()
        dependence = infer_dependence(rows, self.declared)
        return factors, dependence, frozenset(dependence)

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        """Pairs to show, never chosen by their answers, with their pictures."""
        return (), {}


class GalleryTarget(SurveyTarget):
    """The pairs of a gallery."""

    source: Gallery

    @property
    def has_files(self) -> bool:
        return self.source.files is not None

    def plan(self, options: SurveyOptions, size: int, *, scales: bool = True) -> Plan:
        return plan_gallery(self.source, options.picture_size or size, options.noise, options.limits, scales=scales)

    def describe(self, plan: Plan) -> WorldConfig:
        return describe_gallery(self.source)

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        return example_pairs_of(plan, rows)


class WorldTarget(SurveyTarget):
    """Pairs drawn from a world's independent prior, asked the queries of the policy that verdicts are judged by."""

    source: World
    policy: Policy

    def plan(self, options: SurveyOptions, size: int, *, scales: bool = True) -> Plan:
        return plan_world(self.source, self.policy, options.num_scenes, options.seed, options.picture_size or size)

    def describe(self, plan: Plan) -> WorldConfig:
        return describe_world(self.source, plan.pair_kind)

    def num_scenes(self, options: SurveyOptions, rows: pl.DataFrame) -> int:
        return options.num_scenes

    def shadow_questions(self, rows: pl.DataFrame) -> ShadowQuestions:
        dependence = {query.name: frozenset(query.depends_on) for query in self.policy.queries}
        asked = frozenset(query.name for query in self.policy.supported(self.source.prior))
        return self.source.space.names, dependence, asked

    def examples(self, plan: Plan, rows: pl.DataFrame) -> Examples:
        names = sorted(self.source.prior.correlated or self.source.space.nameable[:2])
        return example_pairs_of(plan, rows.filter(pl.col("factor").is_in(names) & pl.col("query").is_in(names)))


def target_of(target: Target | SurveyTarget, options: SurveyOptions, training: TrainingRecord | None = None) -> SurveyTarget:
    """The survey target that a world, a gallery, a plan, a manifest's path, or a name of a world or gallery stands for.

    A world without a policy is judged as the model was trained on it, else by every open question. Raises `BadManifest` for a file
    without a usable row, `UnknownName` for an unknown gallery.
    """
    if isinstance(target, str):
        target = (
            gallery_named(target, None, options.seed) if is_gallery(target) else world_named(target) if target in WORLDS else Path(target)
        )
    if isinstance(target, Path):
        target = read_manifest(target).gallery
    if isinstance(target, World):
        trained = training.setup.policy if training is not None and training.setup.world == target.name else None
        policy = options.policy or trained or target.open_policy
        return WorldTarget(target, target.policy(policy) if isinstance(policy, str) else policy)
    if isinstance(target, SurveyTarget):
        return target
    return GalleryTarget(target) if isinstance(target, Gallery) else SurveyTarget(target)
