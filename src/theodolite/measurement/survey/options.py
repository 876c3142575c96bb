"""A survey at work: who is asked, how, and the time that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import polars as pl
from torch import nn

from theodolite.asking.answer import Asker
from theodolite.asking.local import LocalAsker
from theodolite.asking.model_inputs import survey_size
from theodolite.measurement.internals.activations import FactorQuestion
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.registry import Stage, look_inside, quietly
from theodolite.measurement.pairs.interventions import first_scenes, interventions_of
from theodolite.measurement.pairs.plan import Plan
from theodolite.measurement.survey.answers import answer_plan
from theodolite.measurement.survey.describe import Picture, describe_model
from theodolite.records.endpoint import EndpointConfig
from theodolite.records.errors import BadInput
from theodolite.records.inside import Inside
from theodolite.records.survey import ModelConfig, SurveyRecord, Thresholds

INSIDE_SCENES = 500


@dataclass(frozen=True, eq=False)
class SurveyResult:
    """A finished survey: the record, the answered rows behind it, the pictures that its examples name, and how it went.

    `seconds` are by part; `pairs_per_s` counts pairs of pictures by the seconds of asking; `notices` say what was decided on the way;
    `rows_at_once` is None where no model was run here.
    """

    record: SurveyRecord
    rows: pl.DataFrame
    pictures: Mapping[str, Picture]
    seconds: Mapping[str, float]
    pairs_per_s: float
    notices: tuple[str, ...]
    rows_at_once: int | None


@dataclass(frozen=True)
class SurveyOptions:
    """How to survey: measures of the inside and the scenes they use, rows at once (None: as memory allows), lines of verdicts.

    Without `official` the questions that came with a world's pictures are not asked.
    """

    measures: tuple[str, ...] = ()
    inside_scenes: int = INSIDE_SCENES
    batch: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    stage: Stage = quietly
    official: bool = True


@dataclass(frozen=True, eq=False)
class SurveyedModel:
    """Who is surveyed: the asker, the side in pixels at which pictures are shown, and what the record says, told after asking.

    `local` is the asker where the model is here, so that measures can look inside.
    """

    asker: Asker
    size: int
    describe: Callable[[], ModelConfig | EndpointConfig]
    notices: Sequence[str] = ()
    local: LocalAsker | None = None

    @classmethod
    def of_model(cls, model: nn.Module, processor: Any, batch: int | None = None) -> SurveyedModel:
        """A model that is here. Raises `UnknownFamily` for one that is not in the families table."""
        asker = LocalAsker(model, processor, batch)
        return cls(asker, survey_size(processor.image_processor), lambda: describe_model(model), asker.notices, asker)

    def refuse_measures(self, measures: Sequence[str]) -> None:
        """Raises `BadInput` if measures are wanted of an inside that is not here."""
        if self.local is None:
            refuse_inside(measures)


def refuse_inside(measures: Sequence[str]) -> None:
    """Raises `BadInput` if there are measures of the inside, for a model that gives answers only."""
    if measures:
        raise BadInput(
            f"--measures {','.join(measures)}: they look inside the model, and an endpoint gives answers only; "
            "leave --measures out, or survey the model from its folder"
        )


@dataclass(eq=False)
class SurveySession:
    """A survey at work: who is asked, what was asked and answered, and the time it took."""

    candidate: SurveyedModel
    plan: Plan
    way: SurveyOptions
    rows: pl.DataFrame
    seconds: dict[str, float]

    @classmethod
    def of(cls, candidate: SurveyedModel, plan: Plan, way: SurveyOptions) -> SurveySession:
        """With all questions of the plan asked. Raises `BadInput` for measures that the candidate cannot be put to."""
        candidate.refuse_measures(way.measures)
        before = monotonic()
        with way.stage("questions", f"{len(plan.pictures):,} pictures, {len(plan.rows):,} comparisons") as tell:
            rows = answer_plan(plan, candidate.asker, tell)
        return cls(candidate, plan, way, rows, {"questions": monotonic() - before})

    def look(
        self,
        values: Mapping[str, Sequence[str]] | None,
        groups: Mapping[str, Mapping[str, tuple[str, ...]]],
        questions: tuple[FactorQuestion, ...],
        seed: int,
    ) -> Inside | None:
        """The measures of the inside that were asked for, if any."""
        asker = self.candidate.local
        if not self.way.measures or asker is None:
            return None
        plan, rows = first_scenes(self.plan, self.rows, self.way.inside_scenes)
        confidence = self.way.thresholds.confidence
        context = MeasureContext(asker.model, asker, plan, rows, interventions_of(rows, values), groups, questions, confidence, seed)
        found, seconds = look_inside(context, self.way.measures, self.way.stage)
        self.seconds |= seconds
        return found

    def survey(self, record: SurveyRecord, pictures: Mapping[str, Picture]) -> SurveyResult:
        """The finished survey."""
        pairs = self.rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
        num_pairs = pairs.select("picture_before", "picture_after").n_unique()
        per_s = num_pairs / max(self.seconds["questions"], 1e-9)
        local = self.candidate.local
        at_once = None if local is None else local.batch_sizer.largest
        return SurveyResult(record, self.rows, pictures, self.seconds, per_s, tuple(self.candidate.notices), at_once)
