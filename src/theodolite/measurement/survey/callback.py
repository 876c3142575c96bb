"""Surveys during training: a Trainer callback that surveys the model being trained every so many steps, without a second copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.targets import Target, target_of
from theodolite.records.errors import BadInput
from theodolite.records.progress import silent_steps
from theodolite.records.survey import SurveyRecord

# Batches are of one size at every step, so that surveys of a run differ by the weights alone.
BATCH = 16


class SurveyCallback(TrainerCallback):  # type: ignore[misc]
    """Surveys the VLM every `every` steps and at the end of training, into `out/step-000100` and so on.

    `model` is (model, processor): the very parameters that are trained, inside whatever the Trainer wraps. `target` and `options` are
    those of `survey_model`; every step asks the same pairs. Gradients, training modes and the random state are restored. Every process
    runs the survey and the first one writes it; sharded models (FSDP) are refused, since the VLM alone does not gather its parameters.
    `records` holds the record of each step. Rates of moved answers go to `log` as survey/read/FACTOR->QUERY and
    survey/leak/FACTOR->QUERY: give the Trainer's own `log`, which passes them on to TensorBoard and W&B; without one they are in its log
    history alone. Raises `ValueError` for an interval below 1.
    """

    def __init__(
        self,
        model: tuple[nn.Module, Any],
        target: Target,
        out: str | Path,
        *,
        every: int,
        options: SurveyOptions | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; survey every 1 step or more")
        options = options or SurveyOptions(num_scenes=100)
        self.options = options if options.batch is not None else replace(options, batch=BATCH)
        self.model, self.target, self.out, self.every = model, target_of(target, self.options), Path(out), every
        self.log = log
        self.records: dict[int, SurveyRecord] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Surveys where a step is due."""
        if state.global_step % self.every == 0:
            self._survey(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Surveys the finished model, unless its last step was surveyed already."""
        if state.global_step not in self.records:
            self._survey(state)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raises `BadInput` for a model whose parameters are sharded."""
        if any(isinstance(parameter, DTensor) for parameter in self.model[0].parameters()):
            raise BadInput("the model's parameters are sharded (FSDP), and it cannot be surveyed in training; survey its checkpoints")

    def _survey(self, state: TrainerState) -> None:
        vlm = self.model[0]
        modes = {module: module.training for module in vlm.modules()}
        try:
            with torch.random.fork_rng(), torch.autocast(str(next(vlm.parameters()).device.type), enabled=False):
                result = survey_model(self.model, self.target, self.options, steps=silent_steps, title=f"step {state.global_step}")
        finally:
            for module, training in modes.items():
                module.training = training
        self.records[state.global_step] = result.record
        cells = [cell for cell in result.record.shadows.cells if cell.form == "open"]
        rates = {f"survey/{'read' if cell.truth_moves else 'leak'}/{cell.factor}->{cell.query}": cell.moved_frac for cell in cells}
        if self.log is None:
            state.log_history.append({"step": state.global_step, **rates})
        else:
            self.log(rates)
        if state.is_world_process_zero:
            folder = self.out / f"step-{state.global_step:06d}"
            result.with_run("training callback", {}, state.global_step).save(folder, overwrite=True)
