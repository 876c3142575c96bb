"""LaVer's teacher as a Trainer callback: its outputs before each student pass, its EMA update after each step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.objectives.laver import LaVer, TeacherOutputs
from theodolite.objectives.teacher import Teacher
from theodolite.training.objective_module import ObjectiveModule

NAME = "teacher.safetensors"


class TeacherCallback(TrainerCallback):
    """Teacher and centre of a LaVer run. Add it to a Trainer's callbacks and call `teach` before each student pass.

    The centre is updated once per step, by the mean over all micro-batches and processes, so any split of a batch gives the same step.
    """

    def __init__(self, objective_module: ObjectiveModule, objective: LaVer) -> None:
        self.objective_module, self.objective = objective_module, objective
        self.teacher: Teacher | None = None
        self.resumed: Path | None = None
        self._total: Tensor | None = None
        self._count = 0

    def teach(self, model: nn.Module, batch: Mapping[str, Any], step: int, *, counted: bool = True) -> dict[str, Any]:
        """The batch with `teacher_outputs` added. `model` is the `ObjectiveModule` as wrapped (DDP, FSDP2, autocast).

        The centre follows the outputs, unless they are not `counted` (evaluation).
        """
        with self._present().teaching(self.objective_module):
            teacher_outputs: TeacherOutputs = model(batch, step, teaching=True)
            total = teacher_outputs.outputs.float().sum(dim=0)
        if counted:
            self._total = total if self._total is None else self._total + total
            self._count += len(teacher_outputs.outputs)
        return {**batch, "teacher_outputs": teacher_outputs}

    def resume(self, checkpoint: Path) -> None:
        """Lets the teacher be that of a checkpoint."""
        self.teacher, self.resumed = None, checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0:  # an evaluation before training may have made a teacher of other weights
            self.teacher, self.resumed = None, None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.follow(state.global_step, state.max_steps)

    def follow(self, step: int, num_steps: int) -> None:
        """Updates the centre, and the teacher if due, after optimizer step number `step` (from 1)."""
        if self._total is not None:
            total, count = self._total, torch.tensor(self._count, device=self._total.device)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(total)
                dist.all_reduce(count)
            self.objective.centre.update(total, int(count))
        self._total, self._count = None, 0
        if self.objective.settings.ema.due(step, num_steps):
            self._present().update(self.objective_module, self.objective.settings.ema.decay)

    def save(self, folder: Path, *, write: bool) -> None:
        """Writes the teacher beside a checkpoint's weights. Call it on every process; `write` on one."""
        state = self._present().state_dict()
        if write:
            save_file({name: value.contiguous().cpu() for name, value in state.items()}, folder / NAME)

    def _present(self) -> Teacher:
        """The teacher, created on first use: only then are the weights loaded, wrapped and on their device."""
        if self.teacher is None:
            self.teacher = Teacher.of(self.objective_module)
            if self.resumed is not None:
                self.teacher.load_state_dict(load_file(self.resumed / NAME))
        return self.teacher
