"""The one module that the Trainer wraps: its forward calls the objective and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from theodolite.objectives.laver import LaVer, TeacherOutputs
from theodolite.objectives.terms import Objective, Terms


class ObjectiveModule(nn.Module):
    """A VLM and an objective with what it trains. Wrapped whole, so that DDP and FSDP2 see every parameter; only the VLM is exported."""

    def __init__(self, vlm: Any, objective: Objective) -> None:
        super().__init__()
        self.vlm, self.objective = vlm, objective

    def forward(self, batch: Mapping[str, Any], step: int, teaching: bool = False) -> Terms | TeacherOutputs:
        """The objective's terms; with `teaching`, what it has to say as a teacher (the caller puts the teacher's weights in place)."""
        if teaching:
            if not isinstance(self.objective, LaVer):
                raise TypeError(f"{type(self.objective).__name__} has no teacher")
            return self.objective.teach(self.vlm, batch)
        return self.objective(self.vlm, batch, step)

    @property
    def _no_split_modules(self) -> Any:
        """What FSDP wraps one by one: the VLM's own layers."""
        return self.vlm._no_split_modules

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """What the Trainer calls for `gradient_checkpointing=True`: the VLM's own layers are recomputed in the backward pass."""
        self.vlm.activation_checkpointing_enable(**options)
