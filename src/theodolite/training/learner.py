"""The one module that the Trainer wraps: its forward calls the objective and does nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from theodolite.objectives.terms import Terms

# Sums and counts of a batch's losses, from the VLM, the batch and the step.
Objective = Callable[[nn.Module, Mapping[str, Any], int], Terms]


class Learner(nn.Module):
    """A VLM and an objective. Wrapped whole, so that DDP and FSDP2 see every parameter; only the VLM is exported."""

    def __init__(self, vlm: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.vlm, self.objective = vlm, objective

    def forward(self, batch: Mapping[str, Any], step: int) -> Terms:
        return self.objective(self.vlm, batch, step)
