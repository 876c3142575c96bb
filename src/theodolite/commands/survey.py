"""The survey of one model from disk, as the command line runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import torch

from theodolite.commands.progress import Steps
from theodolite.commands.targets import SurveyTarget, surveying
from theodolite.measurement.internals.registry import measures_named
from theodolite.measurement.survey.session import INSIDE_SCENES, SurveyedModel, SurveyOptions
from theodolite.models.load import DType, load_vlm
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, whole_folder
from theodolite.records.survey import SurveyRecord
from theodolite.records.training import read_training
from theodolite.records.writing import run_record, write_survey


def survey_from_disk(
    model_path: str,
    out: Path,
    matter: SurveyTarget,
    *,
    overwrite: bool,
    steps: Steps,
    device: str = "cpu",
    dtype: DType = "float32",
    batch: int | None = None,
    attention: str = "sdpa",
    measures: str = "shadows",
    inside_scenes: int | None = None,
) -> SurveyRecord:
    """Surveys a model on a world, a gallery or a file of pairs, writes the record to `out`, and returns it.

    `measures` is a list such as "ladder,causal". Raises `BadInput` on anything that cannot be used, before the model is loaded wherever
    that can be told.
    """
    refuse_taken(out, overwrite=overwrite)
    chosen = measures_named(measures)
    if inside_scenes is not None and not chosen:
        raise BadInput("--inside-scenes is for measures of the inside; name some, such as --measures ladder, or leave it out")
    way = SurveyOptions(chosen, inside_scenes or INSIDE_SCENES, batch, stage=stage_in(steps))
    trained = read_training(Path(model_path))
    title = trained.facts.arm if trained else Path(model_path).name
    survey_candidate = surveying(matter, title, trained, steps.console.print)
    started, before = datetime.now(UTC), time.monotonic()
    model, processor = load_vlm(model_path, device, dtype, attention)
    between = time.monotonic()
    survey = survey_candidate(SurveyedModel.of_model(model, processor, batch), way)
    for notice in survey.notices:
        steps.console.print(f"note: {notice}")
    steps.console.print(f"{survey.pairs_per_s:.1f} pairs a second")
    seconds = {"loading": between - before, "survey": time.monotonic() - between, **survey.seconds}
    run = run_record("survey", started, seconds, attention, device, threads=torch.get_num_threads()).model_copy(
        update={"pairs_per_s": round(survey.pairs_per_s, 3), "rows_at_once": survey.rows_at_once, "notices": survey.notices}
    )
    with whole_folder(out, overwrite=overwrite) as folder:
        write_survey(folder, survey.record, survey.rows, survey.pictures, run)
    return survey.record


def stage_in(steps: Steps) -> Callable[[str, str], AbstractContextManager[Callable[..., None]]]:
    """The parts of a survey as steps of a study, each with its cost in words."""

    def stage(label: str, cost: str) -> AbstractContextManager[Callable[..., None]]:
        steps.console.print(f"{label}: {cost}")
        return steps.step(label)

    return stage
