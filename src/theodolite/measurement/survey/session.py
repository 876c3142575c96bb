"""The survey of one model: asks what the plan says, and assembles the record from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
from theodolite.asking.parts import PartedAsker
from theodolite.measurement.behaviour.accuracy import measure_accuracy
from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.registry import look_inside, measures_named
from theodolite.measurement.internals.sentences import read_sentences
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.interventions import first_scenes, interventions_of
from theodolite.measurement.pairs.plan import Plan
from theodolite.measurement.pairs.rendered_pictures import RenderedPictures
from theodolite.measurement.survey.answers import answer_plan
from theodolite.measurement.survey.describe import rows_hash
from theodolite.measurement.survey.official import score_official
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import Picture, SurveyResult
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.measurement.survey.targets import SurveyTarget, Target, target_of
from theodolite.measurement.survey.thumbnails import thumbnails_of
from theodolite.measurement.survey.unfinished import Unfinished
from theodolite.measurement.survey.worker_models import model_in_workers
from theodolite.models.device import Placement
from theodolite.models.load import load_vlm
from theodolite.questions.coverage import measure_coverage
from theodolite.records.errors import BadInput
from theodolite.records.inside import Inside
from theodolite.records.progress import ProgressSteps, shown_steps
from theodolite.records.survey import RunRecord, Score, SurveyRecord, WorldConfig
from theodolite.records.training import TrainingRecord, read_training
from theodolite.records.writing import run_record
from theodolite.worlds.world import picture_hash

Model = str | Path | tuple[nn.Module, Any] | SurveyedModel


def survey_model(
    model: Model,
    target: Target | SurveyTarget,
    options: SurveyOptions | None = None,
    *,
    training: TrainingRecord | None = None,
    steps: ProgressSteps = shown_steps,
    unfinished: Unfinished | None = None,
    **settings: Any,
) -> SurveyResult:
    """Surveys a vision-language model on counterfactual pairs.

    `model` is a folder, a hub name, or (model, processor), of any family of the table; or a `SurveyedModel`, such as one behind an
    endpoint. `target` is a world, a gallery, a plan, the path of a manifest, or the name of a world or gallery ("shapes",
    "openmoji:skin_tone"). `settings` are fields of `SurveyOptions` and win over `options`. `training` is how the model was trained; a
    folder's own `training.json` is read. `steps` shows how far it is: bars on standard error, or none (`records.progress.silent_steps`).
    With `unfinished` (`unfinished.unfinished_beside`) the answers and measures of a local model are stored as they come, and those that
    an interrupted survey stored are not asked or computed again.

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
    with ExitStack() as stack:
        if isinstance(model, str | Path):
            load = partial(_loaded, model, options)
            in_workers = options.devices or options.on == "ray"
            model = stack.enter_context(model_in_workers(model, options, load)) if in_workers else load()
            seconds["loading"] = monotonic() - before
        elif options.devices or options.on == "ray":
            raise BadInput("--devices and --on ray are for models that workers can load: give the model's folder or hub name")
        if isinstance(model, tuple):
            model = SurveyedModel.of_model(*model, options.batch, options.prompt, options.score, options.limits, options.workers)
        session = SurveySession.ask(model, target, options, steps, seconds, unfinished)
        return session.result(title, training, started)


def _loaded(path: str | Path, options: SurveyOptions) -> SurveyedModel:
    placement = Placement.of(options.device, options.dtype)
    model = load_vlm(path, placement.device, placement.dtype, options.attention)
    return SurveyedModel.of_model(*model, options.batch, options.prompt, options.score, options.limits, options.workers)


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
    if isinstance(pictures, RenderedPictures):
        return pictures.pixel_hash(plan.num_pair_pictures)
    return picture_hash(pictures[: plan.num_pair_pictures])


def _title(model: Model, training: TrainingRecord | None) -> str:
    if training is not None:
        return training.facts.arm
    return Path(model).name if isinstance(model, str | Path) else "model"


@dataclass(eq=False)
class SurveySession:
    """A survey in progress: the model, its asker, the pairs, the answered rows, and the seconds of each part."""

    surveyed: SurveyedModel
    asker: Asker
    target: SurveyTarget
    options: SurveyOptions
    steps: ProgressSteps
    plan: Plan
    rows: pl.DataFrame
    seconds: dict[str, float]
    unfinished: Unfinished | None = None

    @classmethod
    def ask(
        cls,
        surveyed: SurveyedModel,
        target: SurveyTarget,
        options: SurveyOptions,
        steps: ProgressSteps,
        seconds: dict[str, float],
        unfinished: Unfinished | None = None,
    ) -> SurveySession:
        """The session with every question of the plan asked."""
        plan, asker = target.plan(options, surveyed.size, scales=surveyed.scales), surveyed.asker
        if options.measures and isinstance(plan.pictures, FilePictures):
            surveyed.refuse_different_grids([plan.pictures.given_size(number) for number in range(len(plan.pictures))])
        if surveyed.parts is not None:
            stored = None if unfinished is None else unfinished.answers(surveyed.identity(options))
            asker = PartedAsker(surveyed.parts, stored, options.save_every)
        before = monotonic()
        with steps("questions", f"{len(plan.pictures):,} pictures, {len(plan.rows):,} comparisons") as progress:
            rows = answer_plan(plan, asker, progress)
        return cls(surveyed, asker, target, options, steps, plan, rows, {**seconds, "questions": monotonic() - before}, unfinished)

    def result(self, title: str, training: TrainingRecord | None, started: datetime) -> SurveyResult:
        """The finished survey: everything measured of the answers, and inside the model where that was asked for."""
        target, plan, rows, options = self.target, self.plan, self.rows, self.options
        files = plan.pictures if isinstance(plan.pictures, FilePictures) and self.surveyed.shows_pictures else None
        scores = self._official_scores()
        world, policy, description = target.world, target.policy, target.describe(plan)
        examples, pictures = target.examples(plan, rows)
        inside, shown = self._inside(description)
        record = SurveyRecord(
            title=title,
            world=description,
            model=self.surveyed.description,
            policy=None if policy is None else str(policy),
            seed=options.seed,
            noise="perturb" if rows["kind"].eq("perturbation").any() else "given",
            num_scenes=target.num_scenes(options, rows),
            pictures_sha256=_pictures_hash(plan),
            pictures=None if files is None else files.record(),
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
        table = None if files is None else files.table()
        return SurveyResult(record, rows, {**pictures, **shown}, self._run(started), table, thumbnails_of(plan, rows))

    def _official_scores(self) -> tuple[Score, ...]:
        world = self.target.world
        if world is None or not world.official_splits or not self.options.official:
            return ()
        with self.steps("official questions", "the world's own test questions") as progress:
            return score_official(
                world, self.asker, self.options.picture_size or self.surveyed.size, progress, self.options.thresholds.outside_frac
            )

    def _inside(self, description: WorldConfig | None) -> tuple[Inside | None, Mapping[str, Picture]]:
        """The measures of the inside that were asked for, if any, and the pictures that they show, by file name."""
        asker, options = self.surveyed.local, self.options
        if not options.measures:
            return None, {}
        if asker is None and self.surveyed.workers is not None:
            # Measures run on one device, in this process. The workers' memory is free before the model takes it.
            self.surveyed.workers.stop()
            asker = self.surveyed.workers.load()
        if asker is None:
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
        stored = None
        if self.unfinished is not None:
            sentences = None if options.sentences is None else options.sentences.read_text(encoding="utf-8")
            decisive = (rows_hash(self.rows), options.inside_scenes, options.seed, options.thresholds.confidence, sentences)
            stored = self.unfinished.measures(self.surveyed.identity(options), *decisive)
        inside, seconds = look_inside(context, options.measures, self.steps, stored)
        self.seconds |= seconds
        return inside, context.shown_pictures

    def _run(self, started: datetime) -> RunRecord:
        """The run record: seconds of each part, pairs of pictures answered a second, and what was decided on the way."""
        pairs = self.rows.filter(pl.col("kind").is_in(["intervention", "nuisance"]))
        num_pairs, local = pairs.select("picture_before", "picture_after").n_unique(), self.surveyed.local
        attention, device = (None, None) if local is None else (str(local.base.config._attn_implementation), str(local.base.device))
        if self.surveyed.workers is not None:
            device = self.surveyed.workers.device
        threads = None if local is None else torch.get_num_threads()
        return run_record("survey", started, self.seconds, attention, device, threads=threads).model_copy(
            update={
                "pairs_per_s": round(num_pairs / max(self.seconds["questions"], 1e-9), 3),
                "rows_at_once": None if local is None else local.batch_sizer.largest,
                "pictures_folder": self.target.pictures_folder,
                "notices": tuple(self.surveyed.notices),
            }
        )
