"""Losses of a run: reported as progress, collected for the record, and checked for non-finite values, which stop the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent
from theodolite.training.checkpoint import newest_finite

MOST_NON_FINITE = 3  # in a row


class NonFiniteLoss(BadInput):
    """The loss was NaN or infinite three times in a row."""


class NonFiniteLossStop(TrainerCallback):
    """Raises `NonFiniteLoss` on three log entries in a row with a loss that is not finite (recipes log every step).

    The error names the last checkpoint with finite weights. After an entry with a non-finite loss no checkpoint is written, since its
    weights are most likely unusable, and the older ones would be deleted.
    """

    def __init__(self) -> None:
        self.num_non_finite = 0

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        # The terms too: with `logging_nan_inf_filter` transformers leaves non-finite steps out of the loss itself.
        losses = [value for name, value in (logs or {}).items() if name == "loss" or name.startswith("loss/")]
        if not losses:
            return
        bad = [value for value in losses if not math.isfinite(value)]
        self.num_non_finite = self.num_non_finite + 1 if bad else 0
        if bad:
            control.should_save = False
        if self.num_non_finite >= MOST_NON_FINITE:
            raise NonFiniteLoss(
                f"the loss was {bad[0]} at step {state.global_step}, the third time in a row; {_last_good(Path(str(args.output_dir)))}; "
                "lower the learning rate"
            )


class LossMonitor(TrainerCallback):
    """Reports every step as progress and collects losses by step: the whole one, and that of the answers in nats a token.

    `checkpoints` is the folder of the run's checkpoints.
    """

    def __init__(self, progress: Progress = silent, checkpoints: Path | None = None) -> None:
        self.progress, self.checkpoints = progress, checkpoints
        self.losses: list[tuple[int, float]] = []
        self.language: list[tuple[int, float]] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress(state.global_step, state.max_steps, f"loss {self.losses[-1][1]:.3f}" if self.losses else "")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            self.losses.append((state.global_step, float(logs["loss"])))
            is_alone = sum(name.startswith("loss/") for name in logs) < 2
            self.language.append((state.global_step, float(logs["loss" if is_alone else "loss/language"])))

    def refuse_unfinished(self) -> None:
        """Raises `NonFiniteLoss` if the last loss was not finite: the weights are unusable."""
        if self.losses and not np.isfinite(self.losses[-1][1]):
            raise NonFiniteLoss(
                f"the loss was {self.losses[-1][1]} when training ended; {_last_good(self.checkpoints)}; lower the learning rate"
            )

    def thinned(self, every: int = 10) -> tuple[tuple[int, float], ...]:
        """(last step, mean loss of the answers in nats a token) of each block of `every` steps: comparable between objectives."""
        blocks = [self.language[at : at + every] for at in range(0, len(self.language), every)]
        return tuple((block[-1][0], float(np.mean([loss for _, loss in block]))) for block in blocks)


def _last_good(checkpoints: Path | None) -> str:
    newest = None if checkpoints is None else newest_finite(checkpoints)
    return "no checkpoint was written before" if newest is None else f"the last good checkpoint is {newest}"
