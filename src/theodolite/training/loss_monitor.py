"""Losses of a run: reported as progress, collected for the record, and checked for non-finite values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent


class NonFiniteLoss(BadInput):
    """The loss was NaN or infinite three times in a row."""


class LossMonitor(TrainerCallback):
    """Reports every step as progress, collects losses in nats a token, and raises on three non-finite ones in a row."""

    def __init__(self, progress: Progress = silent) -> None:
        self.progress = progress
        self.losses: list[tuple[int, float]] = []
        self.num_non_finite = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress(state.global_step, state.max_steps, f"loss {self.losses[-1][1]:.3f}" if self.losses else "")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        self.losses.append((state.global_step, float(loss)))
        self.num_non_finite = 0 if np.isfinite(loss) else self.num_non_finite + 1
        if self.num_non_finite >= 3:
            raise NonFiniteLoss(f"the loss was {loss} at step {state.global_step}, the third time in a row; lower the learning rate")

    def refuse_unfinished(self) -> None:
        """Raises `NonFiniteLoss` if the last loss was not finite: the weights are unusable."""
        if self.losses and not np.isfinite(self.losses[-1][1]):
            raise NonFiniteLoss(f"the loss was {self.losses[-1][1]} when training ended; lower the learning rate")

    def thinned(self, every: int = 10) -> tuple[tuple[int, float], ...]:
        """(last step, mean loss in nats a token) of each block of `every` steps."""
        blocks = [self.losses[at : at + every] for at in range(0, len(self.losses), every)]
        return tuple((block[-1][0], float(np.mean([loss for _, loss in block]))) for block in blocks)
