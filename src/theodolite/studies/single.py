"""The survey of one model from disk, as the command line runs it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from theodolite.measurement.plan import plan_pairs
from theodolite.measurement.survey import Survey, survey_pairs, survey_world
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


def survey_from_disk(
    model_path: str,
    out: Path,
    *,
    world: str | None,
    pairs: Path | None,
    ask: str | None,
    strength: float | None,
    num_scenes: int,
    seed: int,
    device: str,
    dtype: DType,
    batch: int,
    attention: str,
    overwrite: bool,
    steps: Steps,
) -> SurveyRecord:
    """Surveys a model on a world or on a file of pairs, writes the record to `out`, and returns it.

    Raises `BadInput` on anything that cannot be used, before the model is loaded wherever that can be told.
    """
    if (world is None) == (pairs is None):
        raise BadInput("give either --world or --pairs: where the counterfactual pairs come from")
    if pairs is not None and (ask is not None or strength is not None):
        raise BadInput("--ask and --strength speak of a world; a file of pairs brings its own questions, so leave them out")
    refuse_taken(out, overwrite=overwrite)
    trained = read_training(Path(model_path))
    setting = _setting(world, ask, strength, trained) if world is not None else None
    started, before = datetime.now(UTC), time.monotonic()
    model, processor = load_vlm(model_path, device, dtype, attention)
    between = time.monotonic()
    title = trained.facts.arm if trained else Path(model_path).name
    with steps.step(f"survey {title}") as tell:
        survey: Survey
        if setting is not None:
            found, policy = setting
            facts = trained.facts if trained and str(policy) == trained.setup.policy else None
            survey = survey_world(
                model,
                processor,
                found,
                policy,
                title=title,
                num_scenes=num_scenes,
                seed=seed,
                batch=batch,
                training=facts,
                tell=tell,
            )
        else:
            assert pairs is not None
            plan = plan_pairs(pairs, processor.image_processor.size["height"])
            survey = survey_pairs(model, processor, plan, title=title, batch=batch, tell=tell)
    seconds = {"loading": between - before, "survey": time.monotonic() - between}
    run = run_record("survey", started, seconds, attention, device)
    with whole_folder(out, overwrite=overwrite) as folder:
        write_survey(folder, survey.record, survey.rows, survey.pictures, run)
    return survey.record


def _setting(name: str, ask: str | None, strength: float | None, trained: TrainingRecord | None) -> tuple[World, Policy]:
    """World and policy to judge a model by: as said, else as it was trained, else independent and all open questions."""
    known = trained if trained is not None and trained.setup.world == name else None
    rho = strength if strength is not None else (known.setup.strength if known else 0.0)
    world = world_named(name, rho, known.setup.correlation if known else None)
    text = ask or (known.setup.policy if known else ",".join(query.name for query in world.queries if query.form == "open"))
    return world, world.policy(text)
