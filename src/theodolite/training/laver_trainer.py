"""Trainers of objectives with a teacher: LaVer's, and auxiliary losses that have one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from theodolite.models.forward import adapt, base_model
from theodolite.objectives.laver import LaVer, LaverConfig
from theodolite.objectives.terms import Terms
from theodolite.objectives.visual import AuxiliaryConfig, VisualObjective, auxiliary_losses
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.objective_watch import ObjectiveWatch
from theodolite.training.parameter_groups import give_own_rate
from theodolite.training.teacher_callback import TeacherCallback
from theodolite.training.trainer import ObjectiveTrainer


class TeacherTrainer(ObjectiveTrainer):
    """An `ObjectiveTrainer` with a momentum teacher, which is saved with checkpoints: of LaVer or of auxiliary losses that have one."""

    def __init__(self, model: ObjectiveModule, **options: Any) -> None:
        objective = model.objective
        if not isinstance(objective, LaVer | VisualObjective):
            raise TypeError(f"{type(objective).__name__} has no teacher; take ObjectiveTrainer")
        self.teacher_callback = TeacherCallback(model, objective)
        super().__init__(model, **options)
        self.add_callback(self.teacher_callback)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        with self._metrics.timed("teacher"):
            inputs = self.teacher_callback.teach(model, inputs, self.state.global_step)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _held_out_terms(self, model: nn.Module, batch: Mapping[str, Any], step: int) -> Terms:
        return super()._held_out_terms(model, self.teacher_callback.teach(model, batch, step, counted=False), step)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.teacher_callback.resume(Path(str(self.state.best_model_checkpoint)))

    def _save_beside(self, folder: Path) -> None:
        self.teacher_callback.save(folder, write=self.args.should_save)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.teacher_callback.resume(Path(resume_from_checkpoint))


class LaverTrainer(TeacherTrainer):
    """A Trainer of a Hugging Face VLM with LaVer (arXiv 2512.06281), on the examples of a LLaVA-format source or data set.

    The model is adapted in place (mixed attention, 2D positions, as configured). `auxiliary` losses stand beside LaVer's. Raises
    `BadInput` for a family or an attention back end that does not support it.
    """

    def __init__(self, model: Any, laver: LaverConfig | None = None, auxiliary: AuxiliaryConfig | None = None, **options: Any) -> None:
        laver = laver or LaverConfig()
        adapt(model, laver.adaptation)
        objective = LaVer(
            base_model(model).config, laver, {} if auxiliary is None else auxiliary_losses(model, auxiliary, laver.adaptation)
        )
        super().__init__(ObjectiveModule(model, objective), **options)
        self.head_learning_rate = laver.head_learning_rate
        self.watch = ObjectiveWatch(len(objective.centre.value))
        self.add_callback(self.watch)

    def create_optimizer(self, *args: Any, **options: Any) -> torch.optim.Optimizer:
        """As in the library; with `head_learning_rate`, vision head and mask embedding are groups with a rate of their own."""
        optimizer = super().create_optimizer(*args, **options)
        if self.head_learning_rate is not None:
            give_own_rate(optimizer, self.objective_module.objective.parameters(), self.head_learning_rate)
        return optimizer
