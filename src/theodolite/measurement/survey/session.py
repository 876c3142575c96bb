"""The survey of one model: asks what the plan says, and assembles the record from the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import polars as pl
import torch
from torch import nn

from theodolite.asking.answer import Asker
from theodolite.asking.local import LocalAsker
from theodolite.asking.model_inputs import survey_size
from theodolite.asking.prompts import DEFAULT
from theodolite.measurement.behaviour.accuracy import measure_accuracy
from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.registry import look_inside, measures_named
from theodolite.measurement.internals.sentences import read_sentences
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.interventions import first_scenes, interventions_of
from theodolite.measurement.pairs.plan import Plan
from theodolite.measurement.survey.answers import answer_plan
from theodolite.measurement.survey.describe import describe_model, rows_hash
from theodolite.measurement.survey.official import score_official
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import Picture, SurveyResult
from theodolite.measurement.survey.targets import SurveyTarget, Target, target_of
from theodolite.models.device import Placement
from theodolite.models.families import family_of
from theodolite.models.forward import base_model
from theodolite.models.image_processor import on_pillow, with_pixel_limits
from theodolite.models.load import load_vlm
from theodolite.questions.coverage import measure_coverage
from theodolite.records.asking import ChoiceScore, PromptStyle
from theodolite.records.endpoint import EndpointConfig
from theodolite.records.errors import BadInput
from theodolite.records.inside import Inside
from theodolite.records.progress import ProgressSteps, silent_steps
from theodolite.records.survey import ModelConfig, RunRecord, Score, SurveyRecord, WorldConfig
from theodolite.records.training import TrainingRecord, read_training
from theodolite.records.writing import run_record
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.world import picture_hash


@dataclass(frozen=True, eq=False)
class SurveyedModel:
    """The model of a survey: its asker, the side in pixels of the pictures it is shown, and its description for the record.

    `describe` is called after asking. `scales`: pictures of files must be brought within the limits of their pixels before the model is
    given them; else its image processor does it. `local` is the asker of a model in this process, so that measures can look inside.
    """

    asker: Asker
    size: int
    describe: Callable[[], ModelConfig | EndpointConfig]
    notices: Sequence[str] = ()
    local: LocalAsker | None = None
    scales: bool = True

    @classmethod
    def of_model(
        cls,
        model: nn.Module,
        processor: Any,
        batch: int | None = None,
        prompt: PromptStyle = DEFAULT,
        score: ChoiceScore = "total",
        limits: PixelLimits | None = None,
        workers: int | None = None,
    ) -> SurveyedModel:
        """A model in this process. Raises `UnknownFamily` for one that is not in the families table.

        `limits` of pixels become settings of its image processor where that has some; `workers` threads read pictures of files.
        """
        scales = True
        if limits is not None and limits.ranged:
            family = family_of(base_model(model).config).name
            limited = with_pixel_limits(on_pillow(processor.image_processor), family, limits.min_pixels, limits.max_pixels)
            if limited is not None:
                processor, scales = copy.copy(processor), False
                processor.image_processor = limited
        asker = LocalAsker(model, processor, batch, prompt=prompt, score=score, workers=workers)
        describe = partial(describe_model, model, asker.reader.image_processor, prompt, score)
        return cls(asker, survey_size(processor.image_processor), describe, asker.notices, asker, scales)


Model = str | Path | tuple[nn.Module, Any] | SurveyedModel


def survey_model(
    model: Model,
    target: Target | SurveyTarget,
    options: SurveyOptions | None = None,
    *,
    training: TrainingRecord | None = None,
    steps: ProgressSteps = silent_steps,
    **settings: Any,
) -> SurveyResult:
    """Surveys a vision-language model on counterfactual pairs.

    `model` is a folder, a hub name, or (model, processor), of any family of the table; or a `SurveyedModel`, such as one behind an
    endpoint. `target` is a world, a gallery, a plan, the path of a manifest, or the name of a world or gallery ("shapes",
    "openmoji:skin_tone"). `settings` are fields of `SurveyOptions` and win over `options`. `training` is how the model was trained; a
    folder's own `training.json` is read.

    Raises `UnknownFamily`, `UnknownName`, `BadManifest`, and `BadInput` for anything else that cannot be used, before the model is loaded
    wherever that can be known.
    """
    options = replace(options or SurveyOptions(), **settings)
    measures_named(",".join(options.measures) or "shadows")
    if options.sentences is not None:
        read_sentences(options.sentences)  # a file that cannot be used is refused now
    if training is None and isinstance(model, str | Path):
        training = read_training(Path(model))
    target = target_of(target, options, training)
    if options.limits.ranged and not target.has_files:
        raise BadInput("--max-pixels and --min-pixels are for pictures of files; these are drawn at any size: give --picture-size")
    if isinstance(model, SurveyedModel):
        _refuse_other_asking(model, options)
    started, before, seconds = datetime.now(UTC), monotonic(), {}
    title = options.title or _title(model, training)
    if isinstance(model, str | Path):
        placement = Placement.of(options.device, options.dtype)
        model = load_vlm(model, placement.device, placement.dtype, options.attention)
        seconds["loading"] = monotonic() - before
    if isinstance(model, tuple):
        model = SurveyedModel.of_model(*model, options.batch, options.prompt, options.score, options.limits, options.workers)
    session = SurveySession.ask(model, target, options, steps, seconds)
    return session.result(title, training, started)


def refuse_inside(measures: Sequence[str]) -> None:
    """Raises `BadInput` if measures of the inside are wanted of a model that gives answers only."""
    if measures:
        raise BadInput(
            f"--measures {','.join(measures)}: they look inside the model, and an endpoint gives answers only; "
            "leave --measures out, or survey the model from its folder"
        )


def _refuse_other_asking(surveyed: SurveyedModel, options: SurveyOptions) -> None:
    """Raises `BadInput` if a model that brings its asker is wanted otherwise than this asker can: inside an endpoint, or in other words."""
    asker = surveyed.local
    if asker is None:
        refuse_inside(options.measures)
    elif (asker.prompt, asker.choice_score) != (options.prompt, options.score):
        raise BadInput(
            f"the model's asker writes prompts of style {asker.prompt!r} with the score {asker.choice_score!r}, and the options want "
            f"{options.prompt!r} and {options.score!r}; give SurveyedModel.of_model the same prompt and score"
        )


def _pictures_hash(plan: Plan) -> str:
    """SHA-256, in hex, over the pixels of the pairs' pictures; of pictures in files, over the files' bytes."""
    pictures = plan.pictures
    if isinstance(pictures, FilePictures):
        return pictures.take(range(plan.num_pair_pictures)).sha256()
    return picture_hash(pictures[: plan.num_pair_pictures])


def _title(model: Model, training: TrainingRecord | None) -> str:
    if training is not None:
        return training.facts.arm
    return Path(model).name if isinstance(model, str | Path) else "model"


@dataclass(eq=False)
class SurveySession:
    """A survey in progress: the model, the pairs, the answered rows, and the seconds of each part."""

    surveyed: SurveyedModel
    target: SurveyTarget
    options: SurveyOptions
    steps: ProgressSteps
    plan: Plan
    rows: pl.DataFrame
    seconds: dict[str, float]

    @classmethod
    def ask(
        cls, surveyed: SurveyedModel, target: SurveyTarget, options: SurveyOptions, steps: ProgressSteps, seconds: dict[str, float]
    ) -> SurveySession:
        """The session with every question of the plan asked."""
        plan = target.plan(options, surveyed.size, scales=surveyed.scales)
        if options.measures and surveyed.local is not None and isinstance(plan.pictures, FilePictures):
            surveyed.local.refuse_different_grids(plan.pictures.given_size(number) for number in range(len(plan.pictures)))
        before = monotonic()
        with steps("questions", f"{len(plan.pictures):,} pictures, {len(plan.rows):,} comparisons") as progress:
            rows = answer_plan(plan, surveyed.asker, progress)
        return cls(surveyed, target, options, steps, plan, rows, {**seconds, "questions": monotonic() - before})

    def result(self, title: str, training: TrainingRecord | None, started: datetime) -> SurveyResult:
        """The finished survey: everything measured of the answers, and inside the model where that was asked for."""
        target, plan, rows, options = self.target, self.plan, self.rows, self.options
        scores = self._official_scores()
        world, policy, description = target.world, target.policy, target.describe(plan)
        examples, pictures = target.examples(plan, rows)
        inside, shown = self._inside(description)
        record = SurveyRecord(
            title=title,
            world=description,
            model=self.surveyed.describe(),
            policy=None if policy is None else str(policy),
            seed=options.seed,
            noise="perturb" if rows["kind"].eq("perturbation").any() else "given",
            num_scenes=target.num_scenes(options, rows),
            pictures_sha256=_pictures_hash(plan),
            pictures=plan.pictures.record() if isinstance(plan.pictures, FilePictures) else None,
            rows_sha256=rows_hash(rows),
            coverage=None if world is None or policy is None else measure_coverage(world, policy),
            shadows=measure_shadows(rows, *target.shadow_questions(rows), options.thresholds),
            training=None if training is None else training.facts,
            accuracy=measure_accuracy(rows) if world is None else None,
            left_out=dict(target.left_out),
            scores=scores,
            examples=examples,
            inside=inside,
        )
        table = plan.pictures.table() if isinstance(plan.pictures, FilePictures) else None
        return SurveyResult(record, rows, {**pictures, **shown}, self._run(started), table)

    def _official_scores(self) -> tuple[Score, ...]:
        world = self.target.world
        if world is None or not world.official_splits or not self.options.official:
            return ()
        with self.steps("official questions", "the world's own test questions") as progress:
            return score_official(world, self.surveyed.asker, self.options.picture_size or self.surveyed.size, progress)

    def _inside(self, description: WorldConfig | None) -> tuple[Inside | None, Mapping[str, Picture]]:
        """The measures of the inside that were asked for, if any, and the pictures that they show, by file name."""
        asker, options = self.surveyed.local, self.options
        if not options.measures or asker is None:
            return None, {}
        plan, rows = first_scenes(self.plan, self.rows, options.inside_scenes)
        values, groups = (None, {}) if description is None else (description.factors, description.groups)
        questions = questions_of(rows, self.target.world)
        interventions = interventions_of(rows, values)
        context = MeasureContext(
            asker.model,
            asker,
            plan,
            rows,
            interventions,
            groups,
            questions,
            options.thresholds.confidence,
            options.seed,
            sentences=options.sentences,
        )
        inside, seconds = look_inside(context, options.measures, self.steps)
        self.seconds |= seconds
        return inside, context.shown_pictures

    def _run(self, started: datetime) -> RunRecord:
        """The run record: seconds of each part, pairs of pictures answered a second, and what was decided on the way."""
        pairs = self.rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
        num_pairs, local = pairs.select("picture_before", "picture_after").n_unique(), self.surveyed.local
        attention, device = (None, None) if local is None else (str(local.base.config._attn_implementation), str(local.base.device))
        threads = None if local is None else torch.get_num_threads()
        return run_record("survey", started, self.seconds, attention, device, threads=threads).model_copy(
            update={
                "pairs_per_s": round(num_pairs / max(self.seconds["questions"], 1e-9), 3),
                "rows_at_once": None if local is None else local.batch_sizer.largest,
                "notices": tuple(self.surveyed.notices),
            }
        )
