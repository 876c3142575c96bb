"""The survey of one model from disk, as the command line runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from theodolite.asking.lens import survey_size
from theodolite.measurement.measures import measures_named
from theodolite.measurement.plan import plan_table, read_pairs
from theodolite.measurement.survey import INSIDE_SCENES, Survey, Way, survey_pairs, survey_world
from theodolite.models.load import DType, load_vlm
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, whole_folder
from theodolite.records.survey import SurveyRecord
from theodolite.records.training import TrainingRecord, read_training
from theodolite.records.writing import run_record, write_survey
from theodolite.studies.progress import Steps
from theodolite.worlds.query import Policy
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import World

NUM_SCENES = 200
SEED = 0
Surveying = Callable[[nn.Module, Any, Way], Survey]


def survey_from_disk(
    model_path: str,
    out: Path,
    *,
    world: str | None,
    pairs: Path | None,
    ask: str | None,
    strength: float | None,
    num_scenes: int | None,
    seed: int | None,
    device: str,
    dtype: DType,
    batch: int | None,
    attention: str,
    overwrite: bool,
    steps: Steps,
    measures: str = "shadows",
    inside_scenes: int | None = None,
) -> SurveyRecord:
    """Surveys a model on a world or on a file of pairs, writes the record to `out`, and returns it.

    `num_scenes` and `seed` are those of pairs drawn from a world; None stands for 200 and 0. `measures` is a list such as "ladder,causal".
    Raises `BadInput` on anything that cannot be used, before the model is loaded wherever that can be told.
    """
    refuse_taken(out, overwrite=overwrite)

    def stage(label: str, cost: str) -> AbstractContextManager[Callable[..., None]]:
        steps.console.print(f"{label}: {cost}")
        return steps.step(label)

    chosen = measures_named(measures)
    if inside_scenes is not None and not chosen:
        raise BadInput("--inside-scenes is for measures of the inside; name some, such as --measures ladder, or leave it out")
    way = Way(chosen, inside_scenes or INSIDE_SCENES, batch, stage=stage)
    trained = read_training(Path(model_path))
    title = trained.facts.arm if trained else Path(model_path).name
    survey_model = _surveying(title, trained, world, pairs, ask, strength, num_scenes, seed)
    started, before = datetime.now(UTC), time.monotonic()
    model, processor = load_vlm(model_path, device, dtype, attention)
    between = time.monotonic()
    survey = survey_model(model, processor, way)
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


def _surveying(
    title: str,
    trained: TrainingRecord | None,
    world: str | None,
    pairs: Path | None,
    ask: str | None,
    strength: float | None,
    num_scenes: int | None,
    seed: int | None,
) -> Surveying:
    """What to do with the model once it is there; everything that can be wrong without it is refused here. Raises `BadInput`."""
    if world is not None and pairs is None:
        found, policy = _setting(world, ask, strength, trained)
        scenes, number = NUM_SCENES if num_scenes is None else num_scenes, SEED if seed is None else seed
        return lambda model, processor, way: survey_world(
            model,
            processor,
            found,
            policy,
            title=title,
            num_scenes=scenes,
            seed=number,
            training=trained.facts if trained else None,
            way=way,
        )
    if world is None and pairs is not None:
        given = {"--ask": ask, "--strength": strength, "--scenes": num_scenes, "--seed": seed}
        if idle := [option for option, value in given.items() if value is not None]:
            raise BadInput(f"{', '.join(idle)}: of a world only; a file of pairs brings its own questions and scenes, so leave them out")
        return _surveying_pairs(title, trained, pairs)
    raise BadInput("give either --world or --pairs: where the counterfactual pairs come from")


def _surveying_pairs(title: str, trained: TrainingRecord | None, pairs: Path) -> Surveying:
    table = read_pairs(pairs)

    def survey_model(model: nn.Module, processor: Any, way: Way) -> Survey:
        plan = plan_table(table, pairs.parent, survey_size(processor.image_processor))
        survey = survey_pairs(model, processor, plan, title=title, way=way)
        return replace(survey, record=survey.record.model_copy(update={"training": trained.facts if trained else None}))

    return survey_model


def _setting(name: str, ask: str | None, strength: float | None, trained: TrainingRecord | None) -> tuple[World, Policy]:
    """World and policy to judge a model by: as said, else as it was trained, else independent and all open questions."""
    known = trained if trained is not None and trained.setup.world == name else None
    rho = strength if strength is not None else (known.setup.strength if known else 0.0)
    world = world_named(name, rho, known.setup.correlation if known else None)
    text = ask or (known.setup.policy if known else ",".join(query.name for query in world.queries if query.form == "open"))
    return world, world.policy(text)
