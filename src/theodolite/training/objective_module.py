"""The module that the Trainer wraps; its forward only calls the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from theodolite.objectives.laver import LaVer, TeacherOutputs
from theodolite.objectives.terms import Objective, Terms
from theodolite.objectives.visual import VisualObjective
from theodolite.training.refusals import refuse_reentrant


class ObjectiveModule(nn.Module):
    """A VLM with its objective and the objective's parameters, so DDP and FSDP2 wrap all of them; only the VLM is exported."""

    def __init__(self, vlm: Any, objective: Objective) -> None:
        super().__init__()
        self.vlm, self.objective = vlm, objective

    def forward(self, batch: Mapping[str, Any], step: int, teaching: bool = False) -> Terms | TeacherOutputs | dict[str, Any]:
        """The objective's terms; with `teaching`, the teacher's outputs (the caller swaps in the teacher's weights)."""
        if teaching:
            if not isinstance(self.objective, LaVer | VisualObjective):
                raise TypeError(f"{type(self.objective).__name__} has no teacher")
            return self.objective.teach(self.vlm, batch)
        return self.objective(self.vlm, batch, step)

    @property
    def _no_split_modules(self) -> list[str]:
        """The layer classes that FSDP wraps: those of the VLM's that are present.

        transformers names the classes of a whole CLIP or SigLIP, of which a VLM has the vision tower alone, and accelerate refuses a
        name without a module.
        """
        present = {type(module).__name__ for module in self.vlm.modules()}
        return sorted(present & set(self.vlm._no_split_modules or ()))

    def get_input_embeddings(self) -> nn.Module:
        """The VLM's input embeddings, which accelerate makes a unit of FSDP2."""
        embeddings: nn.Module = self.vlm.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module | None:
        """The VLM's language-model head, of the same unit as the input embeddings where it is tied to them."""
        head: nn.Module | None = self.vlm.get_output_embeddings()
        return head

    def tie_weights(self) -> None:
        """Ties the VLM's tied weights again: accelerate moves them to the meta device and back (`cpu_ram_efficient_loading`)."""
        self.vlm.tie_weights()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Called by the Trainer for activation checkpointing: the VLM's layers are recomputed in the backward pass, without reentry."""
        given = options.pop("activation_checkpointing_kwargs", None)
        self.vlm.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False, **(given or {})}, **options)
        refuse_reentrant(self.vlm)
