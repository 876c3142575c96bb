"""The survey of one model from disk, as the command line runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from theodolite.measurement.plan import plan_table, read_pairs
from theodolite.measurement.survey import Survey, Tell, survey_pairs, survey_world
from theodolite.models.frontends import picture_size
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
Surveying = Callable[[nn.Module, Any, Tell], Survey]


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
    batch: int,
    attention: str,
    overwrite: bool,
    steps: Steps,
) -> SurveyRecord:
    """Surveys a model on a world or on a file of pairs, writes the record to `out`, and returns it.

    `num_scenes` and `seed` are those of pairs drawn from a world; None stands for 200 and 0. Raises `BadInput` on anything that
    cannot be used, before the model is loaded wherever that can be told.
    """
    refuse_taken(out, overwrite=overwrite)
    trained = read_training(Path(model_path))
    title = trained.facts.arm if trained else Path(model_path).name
    survey_model = _surveying(title, trained, world, pairs, ask, strength, num_scenes, seed, batch)
    started, before = datetime.now(UTC), time.monotonic()
    model, processor = load_vlm(model_path, device, dtype, attention)
    between = time.monotonic()
    with steps.step(f"survey {title}") as tell:
        survey = survey_model(model, processor, tell)
    seconds = {"loading": between - before, "survey": time.monotonic() - between}
    run = run_record("survey", started, seconds, attention, device, threads=torch.get_num_threads())
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
    batch: int,
) -> Surveying:
    """What to do with the model once it is there; everything that can be wrong without it is refused here. Raises `BadInput`."""
    if world is not None and pairs is None:
        found, policy = _setting(world, ask, strength, trained)
        scenes, number = NUM_SCENES if num_scenes is None else num_scenes, SEED if seed is None else seed
        return lambda model, processor, tell: survey_world(
            model,
            processor,
            found,
            policy,
            title=title,
            num_scenes=scenes,
            seed=number,
            batch=batch,
            training=trained.facts if trained else None,
            tell=tell,
        )
    if world is None and pairs is not None:
        given = {"--ask": ask, "--strength": strength, "--scenes": num_scenes, "--seed": seed}
        if idle := [option for option, value in given.items() if value is not None]:
            raise BadInput(f"{', '.join(idle)}: of a world only; a file of pairs brings its own questions and scenes, so leave them out")
        return _surveying_pairs(title, trained, pairs, batch)
    raise BadInput("give either --world or --pairs: where the counterfactual pairs come from")


def _surveying_pairs(title: str, trained: TrainingRecord | None, pairs: Path, batch: int) -> Surveying:
    table = read_pairs(pairs)

    def survey_model(model: nn.Module, processor: Any, tell: Tell) -> Survey:
        plan = plan_table(table, pairs.parent, picture_size(processor.image_processor))
        survey = survey_pairs(model, processor, plan, title=title, batch=batch, tell=tell)
        return replace(survey, record=survey.record.model_copy(update={"training": trained.facts if trained else None}))

    return survey_model


def _setting(name: str, ask: str | None, strength: float | None, trained: TrainingRecord | None) -> tuple[World, Policy]:
    """World and policy to judge a model by: as said, else as it was trained, else independent and all open questions."""
    known = trained if trained is not None and trained.setup.world == name else None
    rho = strength if strength is not None else (known.setup.strength if known else 0.0)
    world = world_named(name, rho, known.setup.correlation if known else None)
    text = ask or (known.setup.policy if known else ",".join(query.name for query in world.queries if query.form == "open"))
    return world, world.policy(text)
