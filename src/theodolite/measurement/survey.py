"""The survey of one model: asks what the plan says, and turns the answers into a record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8
from torch import nn

from theodolite.asking.answer import Answer, Ask, Asker, counting
from theodolite.asking.lens import survey_size
from theodolite.asking.local import LocalAsker
from theodolite.measurement.activations import Question
from theodolite.measurement.changes import changes_of, first_scenes
from theodolite.measurement.coverage import measure_coverage
from theodolite.measurement.measures import Stage, look_inside, quietly
from theodolite.measurement.official import score_official
from theodolite.measurement.plan import Plan, plan_pairs, plan_world
from theodolite.measurement.shadows import measure_shadows
from theodolite.measurement.stats import total_variation
from theodolite.measurement.subject import Subject, questions_of
from theodolite.models.families import family_of
from theodolite.models.fingerprint import weights_hash
from theodolite.records.inside import Inside
from theodolite.records.survey import (
    Example,
    ModelConfig,
    Score,
    SurveyRecord,
    Thresholds,
    TrainingFacts,
    WorldConfig,
)
from theodolite.worlds.query import Policy
from theodolite.worlds.world import World, picture_hash

NUM_EXAMPLES = 2
INSIDE_SCENES = 500
Tell = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Survey:
    """A finished survey: the record, the answered rows behind it, the pictures that its examples name, and how it went.

    `seconds` are by part; `pairs_per_s` counts pairs of pictures by the seconds of asking; `notices` say what was decided on the way.
    """

    record: SurveyRecord
    rows: pl.DataFrame
    pictures: Mapping[str, UInt8[np.ndarray, "height width 3"]]
    seconds: Mapping[str, float]
    pairs_per_s: float
    notices: tuple[str, ...]
    rows_at_once: int


@dataclass(frozen=True)
class Way:
    """How to survey: measures of the inside and the scenes they use, rows at once (None: as memory allows), lines of verdicts."""

    measures: tuple[str, ...] = ()
    inside_scenes: int = INSIDE_SCENES
    batch: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    stage: Stage = quietly


def survey(model: nn.Module, processor: Any, pairs: World | Path | Plan, *, title: str = "model", way: Way | None = None) -> Survey:
    """Surveys a model of any family of the table: on a world with all of its open questions, or on pairs from a Parquet file or a plan.

    Raises `UnknownFamily` for a model that is not in the table, `BadPairs` for a file that cannot be used.
    """
    if isinstance(pairs, World):
        policy = pairs.policy(",".join(query.name for query in pairs.queries if query.form == "open"))
        return survey_world(model, processor, pairs, policy, title=title, way=way)
    plan = plan_pairs(pairs, survey_size(processor.image_processor)) if isinstance(pairs, Path) else pairs
    return survey_pairs(model, processor, plan, title=title, way=way)


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
    way: Way | None = None,
) -> Survey:
    """Surveys a model on counterfactual pairs of a world, asking the queries of the policy it is judged by.

    Raises `UnknownFamily` for a model that is not in the families table.
    """
    size = survey_size(processor.image_processor)
    plan = plan_world(world, policy, num_scenes, seed, size)
    work = _Work.of(model, processor, plan, way or Way())
    scores: tuple[Score, ...] = ()
    if world.official_splits:
        with work.way.stage("official questions", "the world's own test questions") as tell:
            scores = score_official(world, work.asker, size, tell)
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
    examples, pictures = _examples(plan, work.rows, world)
    record = SurveyRecord(
        title=title,
        world=describe_world(world, plan.pair_kind),
        model=describe_model(model),
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


def survey_pairs(model: nn.Module, processor: Any, plan: Plan, *, title: str, way: Way | None = None) -> Survey:
    """Surveys a model on pairs from a file. Nothing is known of what training asked: every query of the file counts as asked.

    Which factors an answer depends on is read off the rows: those that move its truth in some row.
    """
    work = _Work.of(model, processor, plan, way or Way())
    interventions = work.rows.filter(pl.col("kind") == "intervention")
    moving = interventions.filter(pl.col("truth_before") != pl.col("truth_after"))
    names = interventions["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset(moving.filter(pl.col("name") == name)["factor"]) for name in names}
    factors = interventions["factor"].unique(maintain_order=True).to_list()
    record = SurveyRecord(
        title=title,
        world=None,
        model=describe_model(model),
        policy=None,
        seed=0,
        num_scenes=work.rows["scene"].n_unique(),
        pictures_sha256=picture_hash(plan.pictures[: plan.num_pair_pictures]),
        rows_sha256=rows_hash(work.rows),
        coverage=None,
        shadows=measure_shadows(work.rows, factors, dependence, frozenset(names), work.way.thresholds),
        training=None,
        inside=work.look(None, {}, questions_of(work.rows, None), 0),
    )
    return work.survey(record, {})


@dataclass(eq=False)
class _Work:
    """A survey at work: the asker, what it was asked, and the time it took."""

    model: nn.Module
    asker: LocalAsker
    plan: Plan
    way: Way
    rows: pl.DataFrame
    seconds: dict[str, float]

    @classmethod
    def of(cls, model: nn.Module, processor: Any, plan: Plan, way: Way) -> _Work:
        """With all questions of the plan asked."""
        asker = LocalAsker(model, processor, way.batch)
        before = monotonic()
        with way.stage("questions", f"{len(plan.pictures):,} pictures, {len(plan.rows):,} comparisons") as tell:
            rows = answer_plan(plan, asker, tell)
        return cls(model, asker, plan, way, rows, {"questions": monotonic() - before})

    def look(
        self,
        values: Mapping[str, Sequence[str]] | None,
        groups: Mapping[str, Mapping[str, tuple[str, ...]]],
        questions: tuple[Question, ...],
        seed: int,
    ) -> Inside | None:
        """The measures of the inside that were asked for, if any."""
        if not self.way.measures:
            return None
        plan, rows = first_scenes(self.plan, self.rows, self.way.inside_scenes)
        confidence = self.way.thresholds.confidence
        subject = Subject(self.model, self.asker, plan, rows, changes_of(rows, values), groups, questions, confidence, seed)
        found, seconds = look_inside(subject, self.way.measures, self.way.stage)
        self.seconds |= seconds
        return found

    def survey(self, record: SurveyRecord, pictures: Mapping[str, UInt8[np.ndarray, "height width 3"]]) -> Survey:
        """The finished survey."""
        pairs = self.rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
        num_pairs = pairs.select("picture_before", "picture_after").n_unique()
        per_s = num_pairs / max(self.seconds["questions"], 1e-9)
        return Survey(record, self.rows, pictures, self.seconds, per_s, tuple(self.asker.notices), self.asker.room.largest)


def answer_plan(plan: Plan, asker: Asker, tell: Tell = lambda done, total: None) -> pl.DataFrame:
    """The plan's rows with both answers, their probabilities in the order of `choices`, and whether anything moved.

    The same question about the same picture is asked once, however many rows it stands in.
    """
    sides = [
        [Ask(picture, question, tuple(choices)) for picture, question, choices in plan.rows.select(
            f"picture_{side}", f"question_{side}", "choices").iter_rows()]
        for side in ("before", "after")
    ]  # fmt: skip
    unique = list(dict.fromkeys(ask for side in sides for ask in side))
    unique.sort(key=lambda ask: ask.picture)
    found = dict(zip(unique, asker.ask(plan.pictures, unique, counting(len(unique), tell)), strict=True))
    rows = plan.rows
    for side, asks in zip(("before", "after"), sides, strict=True):
        rows = rows.with_columns(_answer_columns(asks, [found[ask] for ask in asks], side))
    right = (pl.col("answer_before") == pl.col("truth_before")) & (pl.col("answer_after") == pl.col("truth_after"))
    return rows.with_columns(
        moved=pl.col("answer_before") != pl.col("answer_after"),
        right=right,
        variation=pl.Series(_variations([found[ask] for ask in sides[0]], [found[ask] for ask in sides[1]])),
    )


def _answer_columns(asks: Sequence[Ask], answers: Sequence[Answer], side: str) -> list[pl.Series]:
    chosen = [ask.choices[int(answer.probabilities.argmax())] for ask, answer in zip(asks, answers, strict=True)]
    return [
        pl.Series(f"answer_{side}", chosen, pl.String),
        pl.Series(f"probabilities_{side}", [answer.probabilities.tolist() for answer in answers], pl.List(pl.Float64)),
        pl.Series(f"outside_{side}", [answer.outside for answer in answers], pl.Float64),
    ]


def _variations(before: Sequence[Answer], after: Sequence[Answer]) -> list[float]:
    return [float(total_variation(one.probabilities[None], other.probabilities[None])[0]) for one, other in zip(before, after, strict=True)]


def rows_hash(rows: pl.DataFrame) -> str:
    """SHA-256, in hex, of the rows as JSON lines; made in slices, since the text of a large survey is larger than its rows."""
    digest = hashlib.sha256()
    for part in rows.iter_slices(20_000):
        digest.update(part.write_ndjson().encode())
    return digest.hexdigest()


def describe_world(world: World, pair_kind: str) -> WorldConfig:
    """What the record says of the world."""
    return WorldConfig.model_validate(
        {
            "name": world.name,
            "pair_kind": pair_kind,
            "factors": {factor.name: factor.values for factor in world.space.factors},
            "groups": {factor.name: dict(factor.groups) for factor in world.space.factors if factor.groups},
            "unnameable": tuple(name for name in world.space.names if name not in world.space.nameable),
            "correlations": tuple(
                {
                    "cause": known.cause,
                    "effect": known.effect,
                    "strength": known.strength,
                    "map": known.describe(world.space),
                }
                for known in world.prior.correlations
            ),
        }
    )


def describe_model(model: nn.Module) -> ModelConfig:
    """What the record says of the model."""
    return ModelConfig(
        family=family_of(model.config).name,
        weights_sha256=weights_hash(model),
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
    )


def _examples(plan: Plan, rows: pl.DataFrame, world: World) -> tuple[tuple[Example, ...], dict[str, UInt8[np.ndarray, "height width 3"]]]:
    """The first pairs, by scene, in which a correlated factor moves: never chosen by their answers."""
    correlated = world.prior.correlated or frozenset(world.space.nameable[:2])
    shown = rows.filter(
        (pl.col("kind") == "intervention")
        & (pl.col("form") == "open")
        & pl.col("factor").is_in(sorted(correlated))
        & pl.col("query").is_in(sorted(correlated))
    )
    first = shown.sort("scene", maintain_order=True).group_by(["query", "factor"], maintain_order=True).head(NUM_EXAMPLES)
    examples, pictures = [], {}
    for row in first.iter_rows(named=True):
        names = {}
        for side in ("before", "after"):
            names[side] = f"pictures/{row[f'picture_{side}']:06d}.png"
            pictures[names[side]] = plan.pictures[row[f"picture_{side}"]]
        keys = ("factor", "value_before", "value_after", "truth_before", "truth_after", "answer_before", "answer_after")
        examples.append(
            Example(
                scene_id=row["scene"],
                question=row["question_before"],
                picture_before=names["before"],
                picture_after=names["after"],
                **{key: row[key] for key in keys},
            )
        )
    return tuple(examples), pictures
