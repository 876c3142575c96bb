"""LaVer's teacher as a Trainer callback: its outputs before each student pass, its EMA update after each step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as sharded_checkpoint
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.objectives.laver import LaVer
from theodolite.objectives.teacher import Teacher
from theodolite.objectives.terms import at_least_single
from theodolite.objectives.visual import VisualObjective
from theodolite.records.errors import BadInput
from theodolite.training.checkpoint import read_tensors
from theodolite.training.objective_module import ObjectiveModule

NAME = "teacher.safetensors"
# The folder of a teacher whose tensors are sharded: each process writes and reads its own shards.
SHARDS = "teacher"
CENTRE = "objective.centre.value"


class TeacherCallback(TrainerCallback):
    """Teacher of a run, and LaVer's centre. Add it to a Trainer's callbacks and call `teach` before each student pass.

    The centre is updated once per step, by the mean over all micro-batches and processes, so any split of a batch gives the same step.
    Raises `ValueError` for an objective without a teacher.
    """

    def __init__(self, objective_module: ObjectiveModule, objective: LaVer | VisualObjective) -> None:
        if objective.ema is None:
            raise ValueError("no loss of the objective has a teacher")
        self.objective_module, self.objective, self.ema = objective_module, objective, objective.ema
        self._centre = objective.centre if isinstance(objective, LaVer) else None
        self.teacher: Teacher | None = None
        self.resumed: Path | None = None
        # Whether the centre's sum over processes travels with a trainer's exchange before the next step, which is the first to need it.
        self.is_delayed = False
        self._total: Tensor | None = None
        self._count = 0

    def teach(self, model: nn.Module, batch: Mapping[str, Any], step: int, *, counted: bool = True) -> dict[str, Any]:
        """The batch with `teacher_outputs` added. `model` is the `ObjectiveModule` as wrapped (DDP, FSDP2, autocast).

        The centre follows the outputs, unless they are not `counted` (evaluation).
        """
        if not counted:
            self._catch_up()
        with self._present().teaching(self.objective_module):
            teacher_outputs = model(batch, step, teaching=True)
        if counted and self._centre is not None:
            total = at_least_single(teacher_outputs.outputs).sum(dim=0)
            self._total = total if self._total is None else self._total + total
            self._count += len(teacher_outputs.outputs)
        return {**batch, "teacher_outputs": teacher_outputs}

    def resume(self, checkpoint: Path) -> None:
        """Lets the teacher be that of a checkpoint."""
        self.teacher, self.resumed = None, checkpoint
        self._total, self._count = None, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0:  # an evaluation before training may have made a teacher of other weights
            self.teacher, self.resumed = None, None
            self._total, self._count = None, 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.follow(state.global_step, state.max_steps, delayed=self.is_delayed)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._catch_up()

    def follow(self, step: int, num_steps: int, *, delayed: bool = False) -> None:
        """Updates the centre, and the teacher if due, after optimizer step number `step` (from 1).

        A `delayed` centre moves when the caller has summed `delayed_sums` over processes and gives them to `move_centre`, or before it
        is saved or used in an evaluation.
        """
        if not delayed:
            self._catch_up()
        if self.ema.due(step, num_steps):
            self._present().update(self.objective_module, self.ema.decay_at(step, num_steps))

    def delayed_sums(self) -> Float[Tensor, " entry"]:
        """This process's sums for a step's move of the centre: the teacher's outputs, and their number last, which stays on the device.

        Empty without a centre.
        """
        if self._centre is None:
            return torch.zeros(0, device=next(self.objective.parameters()).device)
        total = self._centre.value.new_zeros(len(self._centre.value)) if self._total is None else self._total
        return torch.cat([total, total.new_full((1,), self._count)])

    def move_centre(self, sums: Float[Tensor, " entry"]) -> None:
        """Moves the centre by the sum of all processes' `delayed_sums`."""
        if self._centre is not None:
            self._centre.update(sums[:-1], sums[-1:])
        self._total, self._count = None, 0

    def _catch_up(self) -> None:
        """Moves a centre whose move is delayed. Call it on every process."""
        if self._total is not None:
            sums = self.delayed_sums()
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(sums)
            self.move_centre(sums)

    def save(self, folder: Path, *, write: bool) -> None:
        """Writes teacher and centre beside a checkpoint's weights. Call it on every process; `write` on one.

        Under FSDP2 each process writes its own shards, so that no device ever holds the whole teacher.
        """
        self._catch_up()
        state = self._state()
        if _is_sharded(state):
            sharded_checkpoint.save(state, checkpoint_id=folder / SHARDS)
        elif write:
            save_file({name: value.contiguous().cpu() for name, value in state.items()}, folder / NAME)

    def _load(self, folder: Path) -> None:
        """Loads what `save` wrote, in place, with any number of processes. Raises `BadInput` if it was written for other parameters."""
        state = self._state()
        sharded = _is_sharded(state)
        path = folder / (SHARDS if sharded else NAME)
        if not path.exists():
            raise BadInput(f"{folder} holds no {path.name}; resume with FSDP if the run was started with it, and without it if not")
        if sharded:
            saved = sharded_checkpoint.FileSystemReader(path).read_metadata().state_dict_metadata.keys()
        else:
            values = read_tensors(path)
            saved = values.keys()
        if saved != state.keys():
            changed = sorted(saved ^ state.keys())
            raise BadInput(f"the saved teacher has other parameters ({changed[0]} ...); resume with the recipe of the original run")
        if sharded:
            sharded_checkpoint.load(state, checkpoint_id=path)
        else:
            for name, value in state.items():
                value.copy_(values[name])
        self._present().refresh()

    def _state(self) -> dict[str, Tensor]:
        """The teacher's tensors and the centre by name."""
        centre = {} if self._centre is None else {CENTRE: self._centre.value}
        return {**self._present().shadow, **centre}

    def _present(self) -> Teacher:
        """The teacher, created on first use: only then are the weights loaded, wrapped and on their device."""
        if self.teacher is None:
            self.teacher = Teacher.of(self.objective_module)
            if self.resumed is not None:
                self._load(self.resumed)
        return self.teacher


def _is_sharded(state: Mapping[str, Tensor]) -> bool:
    return any(isinstance(value, DTensor) for value in state.values())
