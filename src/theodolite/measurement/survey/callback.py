"""Surveys inside a training run: the model that is being trained is asked every so many steps, without a second copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.measurement.pairs.plan import Plan
from theodolite.measurement.survey.session import SurveyOptions, SurveyResult, survey_pairs, survey_world
from theodolite.records.errors import BadInput
from theodolite.records.folder import whole_folder
from theodolite.records.survey import SurveyRecord
from theodolite.records.writing import run_record, write_survey
from theodolite.worlds.query import Policy
from theodolite.worlds.world import World

# Batches are of one size at every step, so that surveys of a run differ by the weights alone.
BATCH = 16


def surveying_world(world: World, policy: Policy, *, num_scenes: int = 100, seed: int = 0) -> Callable[..., SurveyResult]:
    """What a `SurveyCallback` runs: the same pairs of a world at every step."""

    def survey(model: nn.Module, processor: Any, title: str, way: SurveyOptions) -> SurveyResult:
        return survey_world(model, processor, world, policy, title=title, num_scenes=num_scenes, seed=seed, way=way)

    return survey


def surveying_pairs(plan: Plan) -> Callable[..., SurveyResult]:
    """What a `SurveyCallback` runs: the same pairs from a file or a plan at every step."""

    def survey(model: nn.Module, processor: Any, title: str, way: SurveyOptions) -> SurveyResult:
        return survey_pairs(model, processor, plan, title=title, way=way)

    return survey


class SurveyCallback(TrainerCallback):  # type: ignore[misc]
    """Surveys the VLM every `every` steps, and once more at the end, into `out/step-000100` and so on.

    `model` is the VLM inside whatever the Trainer wraps: the very parameters that are trained, no copy. `surveying` is from
    `surveying_world` or `surveying_pairs`. Gradients, mode and random state of training are left as they were. Every process runs the
    survey and the first writes it; sharded models (FSDP) are refused, since the VLM alone does not gather its parameters. `records` holds
    what was found, by step; how often answers move goes into the Trainer's log history as survey/read/FACTOR->QUERY and
    survey/leak/FACTOR->QUERY. Raises `ValueError` for an interval below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        surveying: Callable[..., SurveyResult],
        out: Path,
        *,
        every: int,
        way: SurveyOptions | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; survey every 1 step or more")
        self.model, self.processor, self.surveying, self.out, self.every = model, processor, surveying, out, every
        self.way = way or SurveyOptions()
        if self.way.batch is None:
            self.way = replace(self.way, batch=BATCH)
        self.records: dict[int, SurveyRecord] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Surveys where a step is due."""
        if state.global_step % self.every == 0:
            self._survey(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Surveys the finished model, unless its last step was due anyway."""
        if state.global_step not in self.records:
            self._survey(state)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raises `BadInput` for a model whose parameters are sharded."""
        if any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            raise BadInput("the model's parameters are sharded (FSDP), and it cannot be surveyed in training; survey its checkpoints")

    def _survey(self, state: TrainerState) -> None:
        started, title = datetime.now(UTC), f"step {state.global_step}"
        modes = {module: module.training for module in self.model.modules()}
        try:
            with torch.random.fork_rng(), torch.autocast(str(next(self.model.parameters()).device.type), enabled=False):
                found = self.surveying(self.model, self.processor, title, self.way)
        finally:
            for module, training in modes.items():
                module.training = training
        self.records[state.global_step] = found.record
        cells = [cell for cell in found.record.shadows.cells if cell.form == "open"]
        rates = {f"survey/{'read' if cell.truth_moves else 'leak'}/{cell.factor}->{cell.query}": cell.moved_frac for cell in cells}
        state.log_history.append({"step": state.global_step, **rates})
        if state.is_world_process_zero:
            run = run_record("training callback", started, found.seconds).model_copy(
                update={"pairs_per_s": round(found.pairs_per_s, 3), "rows_at_once": found.rows_at_once, "notices": found.notices}
            )
            with whole_folder(self.out / f"step-{state.global_step:06d}", overwrite=True) as folder:
                write_survey(folder, found.record, found.rows, found.pictures, run)
