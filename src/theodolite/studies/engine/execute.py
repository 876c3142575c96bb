"""One run: an arm trained under a seed, then surveyed. A tour executes runs one after the other, a grid on many cores."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.models.construction.build import build_vlm
from theodolite.models.construction.frontends import SIZE
from theodolite.models.fingerprint import weights_hash
from theodolite.records.progress import Progress, ProgressSteps, silent, silent_steps
from theodolite.records.study import GridRun
from theodolite.records.survey import SurveyRecord
from theodolite.records.training import NAME, TrainedOn, TrainingRecord
from theodolite.records.writing import write_survey
from theodolite.studies.engine.arms import Arm, examples_of
from theodolite.studies.engine.grid_lines import line_of
from theodolite.training.run import Origin, train_on_examples
from theodolite.worlds.registry import world_named
from theodolite.worlds.world import World

# Part of every run's key: raise it when code changes what a run of the same setup gives, and no old run is taken for a new one.
OUTCOME = 1


@dataclass(frozen=True)
class Run:
    """An arm of a world under a seed, and how it is surveyed: all that decides the outcome.

    `correlation` None is the world's own. The pairs of the survey are drawn by `survey_seed`. Without `official` the questions that came
    with a world's pictures are not asked.
    """

    world: str
    arm: Arm
    seed: int
    num_scenes: int = 200
    correlation: tuple[str, str] | None = None
    measures: tuple[str, ...] = ()
    inside_scenes: int = 40
    official: bool = True
    survey_seed: int = 0

    @property
    def training_world(self) -> World:
        """The world, with its factors correlated as strongly as the arm says."""
        return world_named(self.world, self.arm.strength, self.correlation)

    @property
    def setup(self) -> TrainedOn:
        """What decides the outcome of the training."""
        arm = self.arm
        return TrainedOn(
            world=self.world,
            correlation=self.correlation or world_named(self.world).default_correlation,
            strength=arm.strength,
            policy=arm.policy,
            source=arm.source,
            recipe=arm.recipe.settings,
            seed=self.seed,
            num_pictures=arm.num_pictures,
        )

    @property
    def key(self) -> str:
        """Readable words, and a hash of all that decides the outcome. Equal keys are equal runs."""
        survey = [self.num_scenes, self.survey_seed, self.measures, self.inside_scenes if self.measures else 0, self.official]
        arm = [self.arm.name, self.arm.comparison]
        decisive = json.dumps([OUTCOME, self.setup.model_dump(mode="json"), arm, survey], sort_keys=True)
        words = f"{self.world}-{self.arm.name}-{self.arm.strength:g}-seed{self.seed}"
        return f"{words}-{hashlib.sha256(decisive.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What training leaves: the model, its processor, and the record of how it came to be."""

    model: nn.Module
    processor: Any
    record: TrainingRecord


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its line in the study, and the files of its records by name. Small enough to send from machine to machine."""

    line: GridRun
    files: dict[str, bytes]
    seconds: float


def train_run(run: Run, progress: Progress = silent) -> TrainedRun:
    """Draws a run's pictures and questions, builds its model and trains it."""
    arm, recipe, world = run.arm, run.arm.recipe, run.training_world
    progress(0, recipe.steps, f"drawing {arm.num_pictures:,} pictures of {world.name}")
    examples = examples_of(arm, world, SIZE, run.seed)
    model, processor = build_vlm(world.texts, run.seed, recipe.decoder, recipe.frontend, recipe.connector)
    outcome = train_on_examples(
        model,
        processor,
        examples,
        recipe,
        origin=Origin(arm.name, arm.comparison, world.name, arm.strength, arm.source, arm.policy),
        seed=run.seed,
        progress=progress,
    )
    record = TrainingRecord(setup=run.setup, facts=outcome.facts, weights_sha256=weights_hash(model), losses=outcome.losses)
    return TrainedRun(model, processor, record)


def survey_run(
    run: Run, model: tuple[nn.Module, Any], training: TrainingRecord | None, options: SurveyOptions, steps: ProgressSteps = silent_steps
) -> SurveyResult:
    """The survey of a run's model on its own world, judged by the policy that it was trained on."""
    options = replace(options, num_scenes=run.num_scenes, seed=run.survey_seed, policy=run.arm.policy, title=run.arm.name)
    return survey_model(model, run.training_world, options, training=training, steps=steps)


def execute(run: Run) -> RunResult:
    """Trains and surveys on one thread, with nothing kept on this machine: its weights are gone when it is done."""
    before = time.monotonic()
    trained = train_run(run)
    between = time.monotonic()
    trained.model.set_attn_implementation("sdpa")
    options = SurveyOptions(measures=run.measures, inside_scenes=run.inside_scenes, official=run.official)
    result = survey_run(run, (trained.model, trained.processor), trained.record, options)
    done = time.monotonic()
    result = result.with_run("study", {"training": between - before, "survey": done - between})
    line = line_of(run.key, trained.record, result.record, num_trained(trained.model))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_survey(folder, result.record, result.rows, {}, result.run)
        (folder / NAME).write_text(trained.record.to_json())
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return RunResult(line, files, done - before)


def num_trained(model: nn.Module) -> int:
    """Parameters that want a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def surveyed_as(run: Run, record: SurveyRecord, trained: TrainingRecord | None) -> bool:
    """Whether a record is of these very weights and as large as the run wants it."""
    return trained is not None and record.model.weights_sha256 == trained.weights_sha256 and record.num_scenes == run.num_scenes
